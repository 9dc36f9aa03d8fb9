"""Structure detection: the role of each module, from one followed forward, else from its class."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from torch import nn

from fno_telemetry.errors import MapError, ModelError
from fno_telemetry.mapping.layouts import AxesGuide, Place, Places, TrackedSpace
from fno_telemetry.mapping.model_map import GivenRole, MappedBlock, MappedModule, ModelMap, block_name
from fno_telemetry.records import Role
from fno_telemetry.tracing.axis_tracking import read_shape
from fno_telemetry.tracing.branch_sums import role_by_class
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Event,
    Failed,
    ResidualAdded,
)
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.fourier_calls import sizes_by_rank
from fno_telemetry.tracing.lineage import members
from fno_telemetry.tracing.module_calls import Call, distinct_paths, written_class
from fno_telemetry.tracing.nested_tensors import items, tensors_in


def detect_structure(
    model: nn.Module,
    run: Callable[[], object],
    batch_size: int | None,
    given: Mapping[str, GivenRole] | None = None,
) -> ModelMap:
    """Return the map of a model from one forward, done by `run()`.

    `batch_size` is the size of the sample axis in that forward. Errors of `run` are raised. A second forward
    is needed if modules of the model are called both by its own forward and outside it.
    """
    given = given or {}
    roles = {path: entry.role for path, entry in given.items() if entry.role is not None}
    structure = _follow(model, run, roles, within=False)
    if structure.called_in_and_outside():
        structure = _follow(model, run, roles, within=True)
    return structure.build_map(given, roles, batch_size)


def _follow(
    model: nn.Module, run: Callable[[], object], roles: Mapping[str, str], within: bool
) -> "_Structure":
    structure = _Structure()
    with ForwardTrace(model, structure, roles, structure.places.tracker, within) as trace, trace.batch():
        run()
    if structure.errors:
        raise ModelError(f"the forward of the model could not be followed: {structure.errors[0]}")
    return structure


@dataclass
class _EndedCall:
    call: Call
    shapes: list[tuple[int, ...]]
    item: str | None  # the name of the first tensor
    owner: bool


class _Structure:
    """A listener that keeps calls, shapes and sums, but no tensors."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._ended_calls: list[_EndedCall] = []
        self._functions: list[tuple[str, str, tuple[int, ...]]] = []
        self._sums: list[tuple[Call, tuple[Call, ...], tuple[Call, ...]]] = []  # parent, spectral, local
        self._makers_of_output = 0
        self.places = Places()
        self._residual: set[int] = set()  # positions of the sums with only the block's input

    def on(self, event: Event) -> None:
        """Keep the shapes and calls of an event; `Padded` and `Overwriting` change neither."""
        match event:
            case CallEnded():
                self._call_ended(event)
            case ActivationCalled():
                self._functions.append((event.path, event.name, read_shape(event.output) or ()))
                self.places.note(Place("output", event.path, event.number), event.output)
            case BranchesAdded():
                # The name of a sum is known only after the forward; until then it has its position.
                larger = max(event.t, event.s, key=lambda one: one.numel())
                self.places.note(Place("sum", "", len(self._sums)), larger)
                self._sums.append((event.parent, event.spectral, event.local))
            case ResidualAdded():
                self._residual_added(event)
            case Failed():
                self.errors.append(f"{event.where or 'the model'}: {event.line}")

    def _call_ended(self, event: CallEnded) -> None:
        call, tensors = event.call, list(tensors_in(event.output))
        for item, tensor in items(event.output):
            self.places.note(Place("output", call.path, call.number, item), tensor)
        if (first := next(tensors_in(event.inputs), None)) is not None:
            self.places.note(Place("input", call.path, call.number), first)
        named = next((item for item, _ in items(event.output)), None)
        owner = call.module is not None and any(True for _ in call.module.parameters(recurse=False))
        self._ended_calls.append(
            _EndedCall(call, [read_shape(tensor) or () for tensor in tensors], named, owner)
        )
        self._makers_of_output |= event.makers

    def _residual_added(self, event: ResidualAdded) -> None:
        if not any(event.spectral[-1] in added for _, added, _ in self._sums):
            self._residual.add(len(self._sums))
            self.places.note(Place("sum", "", len(self._sums)), event.before)
            self._sums.append((event.parent, event.spectral, ()))

    def called_in_and_outside(self) -> bool:
        """Whether the model itself was called and, outside that call, one of its modules too."""
        outermost = {s.call.path for s in self._ended_calls if s.call.parent and s.call.parent.index == 0}
        return "" in outermost and len(outermost) > 1

    def build_map(
        self, given: Mapping[str, GivenRole], roles: Mapping[str, Role], batch_size: int | None
    ) -> ModelMap:
        per_parent = Counter(parent.index for parent, _, _ in self._sums)
        numbered = frozenset(f.path for f, _, _ in self._sums if per_parent[f.index] > 1 or not f.path)
        blocks = self._blocks(numbered)
        axes = self._axes(given, numbered)
        by_structure = self._roles({block.name for block in blocks})
        parents = {id(entry.call.parent) for entry in self._ended_calls}
        calls = Counter(entry.call.path for entry in self._ended_calls)
        modules: dict[str, MappedModule] = {}
        for entry in self._ended_calls:
            path = entry.call.path
            if path in modules or not path:
                continue
            role, reason = by_structure.get(path) or _role_by_class(entry.call.module)
            if path in roles:
                role, reason = roles[path], "given by hand"
            shape = entry.shapes[0] if entry.shapes else ()
            place = Place("output", path, entry.call.number, entry.item)
            layout = axes.layout(path, entry.call.module, shape, batch_size, place)
            modules[path] = MappedModule(
                name=path,
                class_name=written_class(entry.call.module).__name__ if entry.call.module else "",
                role=role,
                reason=reason,
                spatial_axes=layout.space,
                channel_axis=layout.channel,
                calls=calls[path],
                leaf=id(entry.call) not in parents,
                shape=shape,
                modes=_kept_modes(entry.call),
            )
        functions = Counter(name for name, _, _ in self._functions)
        for name, function, shape in self._functions:
            if name in modules:
                continue
            layout = axes.layout(name, None, shape, batch_size)
            role = roles.get(name, "activation")
            reason = "given by hand" if name in roles else f"calls {function}()"
            modules[name] = MappedModule(
                name, function, role, reason, layout.space, layout.channel, functions[name], shape=shape
            )
        _require_axes(given, modules)
        runs_whole = any(not entry.call.path for entry in self._ended_calls)
        return ModelMap(tuple(modules.values()), blocks, axes, roles, numbered, runs_whole)

    def _blocks(self, numbered: frozenset[str]) -> tuple[MappedBlock, ...]:
        blocks: dict[tuple[str, int], MappedBlock] = {}
        counted = Counter[int]()
        for parent, spectral, local in self._sums:
            name = block_name(parent.path, numbered, counted[parent.index])
            counted[parent.index] += 1
            paths = distinct_paths(spectral), distinct_paths(local)
            blocks.setdefault((name, parent.number), MappedBlock(name, parent.number, *paths))
        return tuple(blocks.values())

    def _find_spaces(self, numbered: frozenset[str]) -> dict[Place, TrackedSpace]:
        counted = Counter[int]()
        names = {}
        for position, (parent, _, _) in enumerate(self._sums):
            name = block_name(parent.path, numbered, counted[parent.index])
            counted[parent.index] += 1
            names[Place("sum", "", position)] = Place("sum", name, parent.number)
        spaces = self.places.find_spaces(lambda call: any(one.spectral for one in _with_parents(call)))
        return {names.get(place, place): space for place, space in spaces.items()}

    def _axes(self, given: Mapping[str, GivenRole], numbered: frozenset[str]) -> AxesGuide:
        by_rank: dict[int, tuple[int, ...]] = {}
        sizes = set()
        for entry in self._ended_calls:
            if not entry.call.spectral:
                continue
            for transforms in (entry.call.forward_transforms, entry.call.inverse_transforms):
                for rank, transformed in sizes_by_rank(transforms).items():
                    by_rank.setdefault(rank, tuple(sorted(transformed)))
                    sizes.add(tuple(transformed[axis] for axis in sorted(transformed)))
        if not by_rank:
            guide = AxesGuide()
            for entry in self._ended_calls:
                shape = entry.shapes[0] if entry.shapes else ()
                if (space := guide.layout("", entry.call.module, shape, None).space) and shape:
                    by_rank.setdefault(len(shape), space)
                    sizes.add(tuple(shape[axis] for axis in space))
        fields = [
            shape
            for entry in self._ended_calls
            for shape in entry.shapes
            if len(by_rank.get(len(shape), ())) > 1
        ]
        return AxesGuide(
            self._find_spaces(numbered),
            by_rank,
            frozenset(sizes),
            frozenset(prod(shape[axis] for axis in by_rank[len(shape)]) for shape in fields),
            {path: e.spatial_axes for path, e in given.items() if e.spatial_axes is not None},
            {path: e.channel_axis for path, e in given.items() if e.channel_axis is not None},
        )

    def _roles(self, block_names: set[str]) -> dict[str, tuple[Role, str]]:
        """Return role and reason by path, for the modules whose role follows from the structure."""
        roles: dict[str, tuple[Role, str]] = {}
        spectral = [entry.call for entry in self._ended_calls if entry.call.spectral and entry.call.path]
        if not spectral:
            return roles
        around = {id(call) for one in spectral for call in _with_parents(one)}
        first, last = min(call.index for call in spectral), max(call.index for call in spectral)
        for entry in self._ended_calls:
            if entry.owner and entry.call.before.makers & 1 and entry.call.index < first:
                roles[_outside(entry.call, around).path] = (
                    "lifting",
                    "first layer applied to the model's input",
                )
        calls = {entry.call.index: entry.call for entry in self._ended_calls}
        for index in members(self._makers_of_output):
            if index > last and index in calls:
                maker = _outside(calls[index], around)
                if role_by_class(maker.module) is None:
                    roles[maker.path] = ("projection", "last layer before the model's output")
        for _, branch, local in self._sums:
            for call in local:
                roles[call.path] = (
                    "local",
                    f"added to {branch[-1].path}, with the same input",
                )
        for call in spectral:
            transforms = call.forward_transforms + call.inverse_transforms
            axes = ", ".join(str(axis) for axis in sorted({a for t in transforms for a in t.axes}))
            roles[call.path] = ("spectral", f"Fourier transform and its inverse over axes {axes}")
        for position, (parent, _, local) in enumerate(self._sums):
            if parent.path in block_names:
                own = "its own input" if position in self._residual else "a tensor that no module produced"
                other = "a local branch" if local else own
                roles[parent.path] = ("block", f"its forward adds a spectral branch and {other}")
        return roles


def _require_axes(given: Mapping[str, GivenRole], modules: Mapping[str, MappedModule]) -> None:
    """Raise MapError if a given axis does not exist in the output of its module."""
    for name, entry in given.items():
        rank = len(modules[name].shape) if name in modules else 0
        axes = [*(entry.spatial_axes or ()), *([] if entry.channel_axis is None else [entry.channel_axis])]
        if rank and any(axis >= rank for axis in axes):
            shape = modules[name].shape
            raise MapError(f"the output of {name!r} has the shape {shape}, so it has no axis {max(axes)}")


def _kept_modes(call: Call) -> tuple[int, ...] | None:
    mask = call.modes if call.spectral else None
    if mask is None or not mask.any():
        return None
    return tuple(
        int(mask.unsqueeze(-1).movedim(axis, 0).flatten(1).any(1).sum()) for axis in range(mask.ndim)
    )


def _with_parents(call: Call) -> Iterable[Call]:
    one: Call | None = call
    while one is not None:
        yield one
        one = one.parent


def _outside(call: Call, around: set[int]) -> Call:
    """Return the outermost call that contains `call` and no spectral call."""
    while call.parent is not None and id(call.parent) not in around:
        call = call.parent
    return call


def _role_by_class(module: nn.Module | None) -> tuple[Role, str]:
    role = role_by_class(module)
    return ("other", "no role detected") if role is None else (role, f"class {type(module).__name__}")
