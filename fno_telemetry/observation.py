"""What each module of a model is, seen in one forward: by structure, else by class."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from fno_telemetry.axes import AxesGuide
from fno_telemetry.branch_meetings import role_by_class
from fno_telemetry.errors import MapError, ModelError
from fno_telemetry.forward_trace import ForwardTrace
from fno_telemetry.fourier_calls import FourierCall
from fno_telemetry.lineage import members
from fno_telemetry.model_map import GivenRole, MappedBlock, MappedModule, ModelMap, block_name
from fno_telemetry.module_calls import Call, distinct_paths, written_class
from fno_telemetry.outputs import tensors_in


def observe(
    model: nn.Module,
    run: Callable[[], object],
    batch_size: int | None,
    given: Mapping[str, GivenRole] | None = None,
) -> ModelMap:
    """Follow one forward, done by `run()`, and say what each module is.

    `batch_size` is the size of the sample axis in that forward. What `run` raises is raised.
    """
    given = given or {}
    roles = {path: entry.role for path, entry in given.items() if entry.role is not None}
    seen = _Structure()
    with ForwardTrace(model, seen, roles) as trace:
        seen.trace = trace
        with trace.batch():
            run()
    if seen.errors:
        raise ModelError(f"the structure of the model could not be followed: {seen.errors[0]}")
    return seen.model_map(given, roles, batch_size)


@dataclass
class _Seen:
    call: Call
    shapes: list[tuple[int, ...]]
    owner: bool


class _Structure:
    """A listener that keeps the shape of what happens, and no tensor."""

    def __init__(self) -> None:
        self.trace: ForwardTrace | None = None
        self.errors: list[str] = []
        self._seen: list[_Seen] = []
        self._functions: list[tuple[Call, str, tuple[int, ...]]] = []
        self._sums: list[tuple[Call, tuple[Call, ...], tuple[Call, ...]]] = []  # frame, spectral, local
        self._makers_of_output = 0

    def call_ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = list(tensors_in(output))
        owner = call.module is not None and any(True for _ in call.module.parameters(recurse=False))
        self._seen.append(_Seen(call, [tuple(tensor.shape) for tensor in tensors], owner))
        if call.parent is not None and call.parent.index == 0 and self.trace is not None:
            for tensor in tensors:
                lineage = self.trace.lineage(tensor)
                self._makers_of_output |= lineage.makers if lineage else 0

    def activation_called(self, frame: Call, name: str, number: int, output: torch.Tensor) -> None:
        self._functions.append((frame, name, tuple(output.shape)))

    def branches_met(
        self,
        spectral: tuple[Call, ...],
        local: tuple[Call, ...],
        frame: Call,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> None:
        self._sums.append((frame, spectral, local))

    def residual_added(
        self, spectral: tuple[Call, ...], frame: Call, before: torch.Tensor, after: torch.Tensor
    ) -> None:
        if not any(spectral[-1] in met for _, met, _ in self._sums):
            self._sums.append((frame, spectral, ()))

    def overwriting(self, target: torch.Tensor) -> None:
        """Shapes and lineages stay what they are."""

    def failed(self, where: str, error: BaseException) -> None:
        self.errors.append(f"{where or 'the model'}: {type(error).__name__}: {error}")

    def model_map(
        self, given: Mapping[str, GivenRole], roles: Mapping[str, str], batch_size: int | None
    ) -> ModelMap:
        runs_whole = self._keep_to_the_model()
        per_frame = Counter(frame.index for frame, _, _ in self._sums)
        numbered = frozenset(f.path for f, _, _ in self._sums if per_frame[f.index] > 1 or not f.path)
        blocks = self._blocks(numbered)
        axes = self._axes(given)
        found = self._roles({block.name for block in blocks})
        parents = {id(seen.call.parent) for seen in self._seen}
        calls = Counter(seen.call.path for seen in self._seen)
        modules: dict[str, MappedModule] = {}
        for seen in self._seen:
            path = seen.call.path
            if path in modules or not path:
                continue
            role, reason = found.get(path) or _role_by_class(seen.call.module)
            if path in roles:
                role, reason = roles[path], "given by hand"
            shape = seen.shapes[0] if seen.shapes else ()
            layout = axes.layout(path, seen.call.module, shape, batch_size)
            modules[path] = MappedModule(
                name=path,
                class_name=written_class(seen.call.module).__name__ if seen.call.module else "",
                role=role,
                reason=reason,
                spatial_axes=layout.space,
                channel_axis=layout.channel,
                calls=calls[path],
                leaf=id(seen.call) not in parents,
                shape=shape,
                modes=_kept_modes(seen.call),
            )
        for frame, function, shape in self._functions:
            name = f"{frame.path}#{function}"
            layout = axes.layout(name, None, shape, batch_size)
            role = roles.get(name, "activation")
            reason = "given by hand" if name in roles else f"calls {function}()"
            modules[name] = MappedModule(
                name, function, role, reason, layout.space, layout.channel, shape=shape
            )
        _require_axes(given, modules)
        return ModelMap(tuple(modules.values()), blocks, axes, roles, numbered, runs_whole)

    def _keep_to_the_model(self) -> bool:
        """Where the model itself was called, forget what ran beside it; say whether it was."""
        runs_whole = any(not seen.call.path for seen in self._seen)
        if runs_whole:
            self._seen = [seen for seen in self._seen if not seen.call.outermost.path]
            self._functions = [entry for entry in self._functions if not entry[0].outermost.path]
            self._sums = [entry for entry in self._sums if not entry[0].outermost.path]
        return runs_whole

    def _blocks(self, numbered: frozenset[str]) -> tuple[MappedBlock, ...]:
        blocks: dict[tuple[str, int], MappedBlock] = {}
        counted = Counter[int]()
        for frame, spectral, local in self._sums:
            name = block_name(frame.path, numbered, counted[frame.index])
            counted[frame.index] += 1
            paths = distinct_paths(spectral), distinct_paths(local)
            blocks.setdefault((name, frame.number), MappedBlock(name, frame.number, *paths))
        return tuple(blocks.values())

    def _axes(self, given: Mapping[str, GivenRole]) -> AxesGuide:
        by_rank: dict[int, tuple[int, ...]] = {}
        sizes = set()
        for seen in self._seen:
            if not seen.call.spectral:
                continue
            for transforms in (seen.call.forward_transforms, seen.call.inverse_transforms):
                for rank, transformed in _sizes_by_rank(transforms).items():
                    by_rank.setdefault(rank, tuple(sorted(transformed)))
                    sizes.add(tuple(transformed[axis] for axis in sorted(transformed)))
        if not by_rank:
            guide = AxesGuide()
            for seen in self._seen:
                shape = seen.shapes[0] if seen.shapes else ()
                if (space := guide.layout("", seen.call.module, shape, None).space) and shape:
                    by_rank.setdefault(len(shape), space)
                    sizes.add(tuple(shape[axis] for axis in space))
        fields = [
            shape for seen in self._seen for shape in seen.shapes if len(by_rank.get(len(shape), ())) > 1
        ]
        return AxesGuide(
            by_rank,
            frozenset(sizes),
            frozenset(prod(shape[axis] for axis in by_rank[len(shape)]) for shape in fields),
            {path: e.spatial_axes for path, e in given.items() if e.spatial_axes is not None},
            {path: e.channel_axis for path, e in given.items() if e.channel_axis is not None},
        )

    def _roles(self, block_names: set[str]) -> dict[str, tuple[str, str]]:
        """Return role and reason by path, for what the structure tells."""
        found: dict[str, tuple[str, str]] = {}
        spectral = [seen.call for seen in self._seen if seen.call.spectral]
        if not spectral:
            return found
        around = {id(call) for one in spectral for call in _with_parents(one)}
        first, last = min(call.index for call in spectral), max(call.index for call in spectral)
        for seen in self._seen:
            if seen.owner and seen.call.before.makers & 1 and seen.call.index < first:
                found[_outside(seen.call, around).path] = ("lifting", "first to see the model's input")
        ended = {seen.call.index: seen.call for seen in self._seen}
        for index in members(self._makers_of_output):
            if index > last and index in ended:
                found[_outside(ended[index], around).path] = ("projection", "last to make the output")
        for _, branch, local in self._sums:
            for call in local:
                found[call.path] = ("local", f"added to {branch[-1].path}, fed by the same input")
        for call in spectral:
            transforms = call.forward_transforms + call.inverse_transforms
            axes = ", ".join(str(axis) for axis in sorted({a for t in transforms for a in t.axes}))
            found[call.path] = ("spectral", f"Fourier transform and its inverse over axes {axes}")
        for frame, _, local in self._sums:
            if frame.path in block_names:
                other = "a local branch" if local else "what is not a module's"
                found[frame.path] = ("block", f"its forward adds a spectral branch and {other}")
        return found


def _sizes_by_rank(transforms: Iterable[FourierCall]) -> dict[int, dict[int, int]]:
    """Return by number of dimensions the size of each axis; a layer may take one axis after the other."""
    found: dict[int, dict[int, int]] = {}
    for transform in transforms:
        sizes = {axis: transform.shape[axis] for axis in transform.axes}
        found.setdefault(len(transform.shape), {}).update(sizes)
    return found


def _require_axes(given: Mapping[str, GivenRole], modules: Mapping[str, MappedModule]) -> None:
    """Refuse axes that the module at this path does not have; MapError."""
    for name, entry in given.items():
        rank = len(modules[name].shape) if name in modules else 0
        axes = [*(entry.spatial_axes or ()), *([] if entry.channel_axis is None else [entry.channel_axis])]
        if rank and any(axis >= rank for axis in axes):
            shape = modules[name].shape
            raise MapError(f"{name!r} returns the shape {shape}, which has no axis {max(axes)}")


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
    """Return the outermost module around `call` that holds no spectral call."""
    while call.parent is not None and id(call.parent) not in around:
        call = call.parent
    return call


def _role_by_class(module: nn.Module | None) -> tuple[str, str]:
    role = role_by_class(module)
    return ("other", "no role seen") if role is None else (role, f"class {type(module).__name__}")
