"""Structure detection: the role of each module, from one followed forward, else from its class."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from operator import or_

import torch
from torch import nn

from fno_telemetry.errors import MapError, ModelError
from fno_telemetry.mapping.layouts import AxesGuide, Place, Places, TrackedSpace
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.mapping.model_map import GivenRole, MappedBlock, MappedModule, ModelMap, block_name
from fno_telemetry.mapping.plan_recorder import PlanRecorder
from fno_telemetry.records import Role
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
from fno_telemetry.tracing.module_calls import Call, distinct_paths, owns_parameters, written_class
from fno_telemetry.tracing.nested_tensors import items, tensors_in
from fno_telemetry.tracing.tensor_shapes import read_shape

RunFollowed = Callable[[AbstractContextManager[None]], None]
"""Runs one forward within a block of this context manager, which follows it."""


def detect_structure(
    model: nn.Module,
    run: RunFollowed,
    batch_size: int | None,
    given: Mapping[str, GivenRole] | None = None,
) -> MeasurementPlan:
    """Return the measurement plan of a model, with its map, from one forward, done by `run`.

    `batch_size` is the size of the sample axis in that forward. Errors of `run` are raised. A second forward
    is needed if modules of the model are called both by its own forward and outside it.
    """
    given = given or {}
    roles = {path: entry.role for path, entry in given.items() if entry.role is not None}
    structure, trace = _follow(model, run, roles, _Structure(), within=False)
    if structure.called_in_and_outside():
        structure, trace = _follow(model, run, roles, _Structure(), within=True)
    plan = structure.build_plan(given, roles, batch_size, trace.has_hidden_writes)
    return replace(
        plan,
        has_homeless_transforms=trace.has_homeless_transforms,
        lent=trace.uncalled.lent_paths,
        methods=trace.uncalled.methods_by_path,
    )


def _follow(
    model: nn.Module, run: RunFollowed, roles: Mapping[str, str], structure: "_Structure", within: bool
) -> "tuple[_Structure, ForwardTrace]":
    with ForwardTrace(model, structure, roles, structure.places.tracker, within) as trace:
        run(trace.batch())
    if structure.errors:
        raise ModelError(f"the forward of the model could not be followed: {structure.errors[0]}")
    return structure, trace


@dataclass
class _EndedCall:
    call: Call
    shapes: list[tuple[int, ...]]
    item: str | None  # the name of the first tensor
    owner: bool


@dataclass
class _NotedSum:
    parent: Call
    spectral: tuple[Call, ...]
    local: tuple[Call, ...]
    order: int
    residual: bool = False


class _Structure:
    """A listener that keeps calls, shapes and sums, but no tensors."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._ended_calls: list[_EndedCall] = []
        self._functions: list[tuple[str, str, tuple[int, ...]]] = []
        self._sums: list[_NotedSum] = []  # as reported
        self._makers_of_output = 0
        self.places = Places()
        self._recorder = PlanRecorder()

    def on(self, event: Event) -> None:
        """Keep the shapes and calls of an event; `Padded` and `Overwriting` change neither."""
        self._recorder.on(event, len(self._sums))
        match event:
            case CallEnded():
                self._call_ended(event)
            case ActivationCalled():
                self._functions.append((event.path, event.name, read_shape(event.output) or ()))
                self.places.note(Place("output", event.path, event.number), event.output)
            case BranchesAdded():
                self._note_sum(event.result)
                self._sums.append(_NotedSum(event.parent, event.spectral, event.local, event.order))
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
        shapes = [read_shape(tensor) or () for tensor in tensors]
        self._ended_calls.append(_EndedCall(call, shapes, named, owns_parameters(call.module)))
        self._makers_of_output |= event.makers

    def _residual_added(self, event: ResidualAdded) -> None:
        noted = next((noted for noted in self._sums if event.spectral[-1] in noted.spectral), None)
        if noted is None:
            self._note_sum(event.result)
            noted = _NotedSum(event.parent, event.spectral, (), event.order)
            self._sums.append(noted)
        noted.residual = True

    def _note_sum(self, result: torch.Tensor | None) -> None:
        """Note the axes of a sum, which has a position until the forward has ended, and then a name."""
        if result is not None:
            self.places.note(Place("sum", "", len(self._sums)), result)

    def called_in_and_outside(self) -> bool:
        """Whether the model itself was called and, outside that call, one of its modules too."""
        outermost = {s.call.path for s in self._ended_calls if s.call.parent and s.call.parent.index == 0}
        return "" in outermost and len(outermost) > 1

    def build_plan(
        self,
        given: Mapping[str, GivenRole],
        roles: Mapping[str, Role],
        batch_size: int | None,
        has_hidden_writes: bool,
    ) -> MeasurementPlan:
        """Return the map of the model, and how its forwards are measured."""
        model_map = self._build_map(given, roles, batch_size)
        # The sides of other blocks are those of a module, or of a residual sum.
        blocks = zip(self._sum_names(self._order_of_sums(), model_map.numbered), self._sums, strict=True)
        has_sides = [
            name != noted.parent.path and not model_map.is_residual(name, noted.parent.number)
            for name, noted in blocks
        ]
        return self._recorder.build(model_map, has_sides, has_hidden_writes)

    def _build_map(
        self, given: Mapping[str, GivenRole], roles: Mapping[str, Role], batch_size: int | None
    ) -> ModelMap:
        order_of_sums = self._order_of_sums()
        numbered = frozenset(
            path for (path, _), numbers in order_of_sums.items() if len(numbers) > 1 or not path
        )
        names = self._sum_names(order_of_sums, numbered)
        blocks = self._blocks(names)
        axes = self._axes(given, names)
        holders = {path for path, _ in order_of_sums if path}
        # The only module that holds all sums is the operator rather than one of its blocks.
        several = holders if len(holders) > 1 else set[str]()
        by_structure = self._roles({block.name for block in blocks} | several)
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
        _leave_out_embeddings(modules, roles)
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
        warnings = tuple(self._transforms_over_samples(batch_size))
        return ModelMap(
            tuple(modules.values()), blocks, axes, roles, numbered, order_of_sums, runs_whole, warnings
        )

    def _transforms_over_samples(self, batch_size: int | None) -> Iterator[str]:
        """Yield a warning that names the innermost modules whose transforms run over the samples."""
        mixing = dict.fromkeys(
            entry.call.path
            for entry in self._ended_calls
            for transform in entry.call.forward_transforms
            if batch_size is not None and 0 in transform.axes and transform.shape[0] == batch_size
        )
        innermost = [path for path in mixing if not any(one.startswith(f"{path}.") for one in mixing)]
        if mixing:
            names = ", ".join(filter(None, innermost)) or "the model"
            yield (
                f"{names}: the Fourier transform runs over axis 0, "
                "which holds the samples, so each output depends on the other samples of its batch; give it "
                "the axes of space alone, such as dim=(-2, -1)"
            )

    def _order_of_sums(self) -> dict[tuple[str, int], tuple[int, ...]]:
        """Return by path and number of a parent call the number of each of its sums, in order of report."""
        by_parent: dict[tuple[str, int], list[int]] = {}
        for noted in self._sums:
            by_parent.setdefault((noted.parent.path, noted.parent.number), []).append(noted.order)
        return {
            parent: tuple(sorted(orders).index(order) for order in orders)
            for parent, orders in by_parent.items()
        }

    def _sum_names(
        self, order_of_sums: Mapping[tuple[str, int], tuple[int, ...]], numbered: frozenset[str]
    ) -> list[str]:
        """Return the block name of each sum."""
        numbers = {parent: iter(order) for parent, order in order_of_sums.items()}
        parents = [noted.parent for noted in self._sums]
        return [block_name(p.path, numbered, next(numbers[p.path, p.number])) for p in parents]

    def _blocks(self, names: Sequence[str]) -> tuple[MappedBlock, ...]:
        blocks: dict[tuple[str, int], MappedBlock] = {}
        for name, noted in sorted(zip(names, self._sums, strict=True), key=lambda pair: pair[1].order):
            paths = distinct_paths(noted.spectral), distinct_paths(noted.local)
            blocks[name, noted.parent.number] = MappedBlock(name, noted.parent.number, *paths, noted.residual)
        return tuple(blocks.values())

    def _find_spaces(self, sum_names: Sequence[str]) -> dict[Place, TrackedSpace]:
        names = {
            Place("sum", "", position): Place("sum", name, noted.parent.number)
            for position, (name, noted) in enumerate(zip(sum_names, self._sums, strict=True))
        }
        spaces = self.places.find_spaces(lambda call: any(one.spectral for one in _with_parents(call)))
        return {names.get(place, place): space for place, space in spaces.items()}

    def _axes(self, given: Mapping[str, GivenRole], sum_names: Sequence[str]) -> AxesGuide:
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
            self._find_spaces(sum_names),
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
        # The model's own forward may transform, or transforms and their inverses are in different modules.
        roots = [entry.call for entry in self._ended_calls if not entry.call.path]
        transforming = [root for root in roots if root.transforms_back]
        if not spectral and not transforming:
            return roles
        starts = [call.index for call in spectral] + [root.calls_before_transforms for root in transforming]
        transformed = reduce(or_, (root.transformed for root in transforming), 0)
        around = {id(call) for one in spectral for call in _with_parents(one)}
        around |= {id(root) for root in roots}
        for entry in self._ended_calls:
            if entry.owner and entry.call.before.makers & 1 and entry.call.index < min(starts):
                roles[_outside(entry.call, around).path] = (
                    "lifting",
                    "first layer applied to the model's input",
                )
        calls = {entry.call.index: entry.call for entry in self._ended_calls}
        bits = reduce(or_, (call.bit for call in spectral), 0)
        for index in members(self._makers_of_output):
            if index not in calls:
                continue
            before = calls[index].before
            # A head of every layer is a projection too.
            is_last = bool(bits) and index >= bits.bit_length()
            if is_last or before.calls & bits or before.values & transformed:
                maker = _outside(calls[index], around)
                if role_by_class(maker.module) is None:
                    roles[maker.path] = ("projection", "last layer before the model's output")
        for noted in self._sums:
            for call in noted.local:
                roles[call.path] = ("local", f"added to {noted.spectral[-1].path}, with the same input")
        for call in spectral:
            transforms = call.forward_transforms + call.inverse_transforms
            axes = ", ".join(str(axis) for axis in sorted({a for t in transforms for a in t.axes}))
            roles[call.path] = ("spectral", f"Fourier transform and its inverse over axes {axes}")
        for noted in self._sums:
            if noted.parent.path in block_names:
                own = "its own input" if noted.residual else "a tensor that no module produced"
                other = "a local branch" if noted.local else own
                roles[noted.parent.path] = ("block", f"its forward adds a spectral branch and {other}")
        return roles


def _leave_out_embeddings(modules: dict[str, MappedModule], given: Mapping[str, Role]) -> None:
    """Take the role of a lifting from layers of inputs without a grid, where another layer lifts fields.

    A time or a label is embedded, not lifted.
    """
    lifting = [entry for entry in modules.values() if entry.role == "lifting" and entry.name not in given]
    if any(entry.spatial_axes for entry in lifting):
        for entry in lifting:
            if not entry.spatial_axes:
                modules[entry.name] = replace(entry, role="other", reason="no role detected")


def _require_axes(given: Mapping[str, GivenRole], modules: Mapping[str, MappedModule]) -> None:
    """Raise MapError if a given axis does not exist in the output of its module."""
    for name, entry in given.items():
        rank = len(modules[name].shape) if name in modules else 0
        axes = [*(entry.spatial_axes or ()), *([] if entry.channel_axis is None else [entry.channel_axis])]
        if rank and any(axis >= rank for axis in axes):
            shape = modules[name].shape
            raise MapError(f"the output of {name!r} has the shape {shape}, so it has no axis {max(axes)}")


def _kept_modes(call: Call) -> tuple[int, ...] | None:
    """Return how many frequencies a spectral call keeps along each axis, None if that is not fixed."""
    by_axis: dict[int, int] = {}
    for axes, kept in call.modes_by_axes().items() if call.spectral else ():
        if kept is None or kept.padded or not kept.fixed or not kept.mask.any() or by_axis.keys() & set(axes):
            return None
        for position, axis in enumerate(axes):
            along = kept.mask.unsqueeze(-1).movedim(position, 0).flatten(1).any(1)
            by_axis[axis] = int(along.sum())
    return tuple(by_axis[axis] for axis in sorted(by_axis)) or None


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
