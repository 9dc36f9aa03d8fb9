"""The module calls that a followed forward consists of, by canonical path."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from fno_telemetry.tracing.canonical_paths import WRAPPERS, canonical_names
from fno_telemetry.tracing.fourier_calls import FourierCall, KeptModes, count_frequencies, find_modes
from fno_telemetry.tracing.lineage import UNKNOWN, Lineage, Operand

# Attributes that quantization adds to a layer: packed weight and bias, fake quantizers, observers.
_QUANTIZING = ("_packed_params", "weight_fake_quant", "activation_post_process")
# Sharding and parametrization derive a class from the module's own; its name starts with one of these.
_DERIVED = ("FSDP", "DDP", "Parametrized")


@dataclass(eq=False)
class Call:
    """One call of one module: the `number`-th of its path in this batch. Call 0 is the whole batch."""

    index: int
    path: str
    number: int
    module: nn.Module | None
    parent: "Call | None"
    before: Lineage = UNKNOWN  # the joined lineage of its inputs
    entered: int = 0  # the values of the fields among its inputs, which are its inputs of the highest rank
    seen: Lineage = UNKNOWN  # the joined lineage of all tensors that its own code has used or made so far
    latest: Operand | None = None  # the last tensor that its own code made
    forward_transforms: list[FourierCall] = field(default_factory=list)
    inverse_transforms: list[FourierCall] = field(default_factory=list)
    transformed: int = 0  # the values that its forward transforms returned
    transformed_back: list[int] = field(default_factory=list)  # per inverse transform: what it descends from
    selects: bool = False  # whether it chooses coefficients by their size
    functions: list[str] = field(default_factory=list)  # the names of those that its own code has called
    ended: int = 0  # the moment of its end
    writes_of_input: int | None = None  # torch's count for its first input, when it began
    # What its transforms keep, and how many frequencies they are given along each axis, where a plan knows.
    known_transforms: "tuple[KeptModes | None, tuple[int, ...]] | None" = None
    own_transforms: int = 0  # how many of them its own code called
    calls_before_transforms: int = 0  # how many calls had started before its first transform
    spectral: bool = False
    held_input: torch.Tensor | None = None  # of a spectral call, until its branch is added
    input_overwritten: bool = False  # by the call itself, so the tensor is not the original input any more

    @property
    def outermost(self) -> "Call":
        """The outermost call that contains this one; only the batch contains it."""
        call = self
        while call.parent is not None and call.parent.index:
            call = call.parent
        return call

    @property
    def transforms_back(self) -> bool:
        """Whether one of its inverse transforms was given what one of its forward transforms returned."""
        return any(self.transformed & values for values in self.transformed_back)

    def take_over_transforms(self, inner: "Call") -> None:
        """Add the transforms of a call inside this one: each may run one of the two that belong together."""
        self.forward_transforms += inner.forward_transforms
        self.inverse_transforms += inner.inverse_transforms
        self.transformed |= inner.transformed
        self.transformed_back += inner.transformed_back
        self.selects |= inner.selects
        starts = [n for n in (self.calls_before_transforms, inner.calls_before_transforms) if n]
        self.calls_before_transforms = min(starts, default=0)

    @property
    def modes(self) -> KeptModes | None:
        """The coefficients that it keeps; None if its inverse transforms differ in axes or points."""
        if self.known_transforms is not None:
            return self.known_transforms[0]
        return self._find_modes(self.inverse_transforms)

    @property
    def available(self) -> tuple[int, ...]:
        """How many frequencies a field has along each axis that it transforms; () if it transforms none."""
        if self.known_transforms is not None:
            return self.known_transforms[1]
        return count_frequencies(self.forward_transforms)

    def modes_by_axes(self) -> dict[tuple[int, ...], KeptModes | None]:
        """Return the coefficients that it keeps by the sorted axes of its inverse transforms."""
        by_axes: dict[tuple[int, ...], list[FourierCall]] = {}
        for back in self.inverse_transforms:
            by_axes.setdefault(tuple(sorted(back.axes)), []).append(back)
        return {axes: self._find_modes(inverse) for axes, inverse in by_axes.items()}

    def _find_modes(self, inverse: Sequence[FourierCall]) -> KeptModes | None:
        kept = find_modes(self.forward_transforms, inverse)
        if kept is not None and self.selects:
            # One sample may show only one choice of many.
            kept = replace(kept, removed=kept.mask)
        return kept

    @property
    def runs_now(self) -> bool:
        """Whether the running forward is this call's own, not that of a module without hooks, as a copy."""
        return self.module is not None and running_module() in (self.module, None)

    @property
    def is_own_code(self) -> bool:
        """Whether the running code is this module's own, not the inside of a module of torch."""
        torch_made = self.module is not None and written_class(self.module).__module__.startswith("torch.nn")
        return not torch_made and self.runs_now

    @property
    def bit(self) -> int:
        """The mask of this call alone."""
        return 1 << self.index


def owns_parameters(module: nn.Module | None) -> bool:
    """Whether a module itself computes with parameters: its own, or those in its lists and dicts of them."""
    if module is None:
        return False
    holders = (nn.ParameterList, nn.ParameterDict)
    lists = [child for child in module.children() if isinstance(child, holders)]
    return any(True for one in (module, *lists) for _ in one.parameters(recurse=False))


def distinct_paths(calls: Iterable[Call]) -> tuple[str, ...]:
    """Return the paths of the calls, each once."""
    return tuple(dict.fromkeys(call.path for call in calls))


def find_wrapped(module: nn.Module) -> nn.Module | None:
    """Return the module inside a wrapper (of compilation, data parallelism, …); None for any other module."""
    for name, child in module.named_children():
        # Any module may have a child called "module"; the other names occur in wrappers only.
        if name in WRAPPERS and (name != "module" or type(module).__module__.startswith("torch.")):
            return child
    return None


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside all of its wrappers."""
    while (inner := find_wrapped(module)) is not None:
        module = inner
    return module


def paths_by_module(model: nn.Module) -> dict[int, tuple[str, ...]]:
    """Return the canonical paths of every module that computes, by its id; a shared module has several.

    Wrappers are left out, and so are the modules that parametrize or quantize a layer, which are part of it.
    """
    left_out = {
        id(part)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for part in module.parametrizations.modules()  # type: ignore[union-attr]
    }
    left_out |= {id(module) for module in model.modules() if find_wrapped(module) is not None}
    named = [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if id(module) not in left_out and path.rpartition(".")[2] not in _QUANTIZING
    ]
    canonical = canonical_names(path for path, _ in named)
    paths: dict[int, list[str]] = {}
    for path, module in named:
        paths.setdefault(id(module), []).append(canonical[path])
    return {key: tuple(dict.fromkeys(names)) for key, names in paths.items()}


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Return every module that computes, by each of its canonical paths."""
    paths = paths_by_module(model)
    return {path: module for module in model.modules() for path in paths.get(id(module), ())}


def running_module() -> nn.Module | None:
    """Return the module whose forward runs on this thread, with or without hooks; None if none runs."""
    return next(_running_modules(), None)


def count_running(module: nn.Module) -> int:
    """Return how many calls of a module run on this thread, one inside another."""
    return sum(running is module for running in _running_modules())


def _running_modules() -> Iterator[nn.Module]:
    """Yield the modules whose forwards run on this thread, the innermost one first."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__:
            yield frame.f_locals["self"]
        frame = frame.f_back


def written_class(module: nn.Module) -> type[nn.Module]:
    """Return the class as written by its author, without the class that torch derives from it at run time."""
    cls = type(module)
    for base in cls.__bases__:
        if cls.__module__.startswith("torch.") and cls.__name__ in {f"{p}{base.__name__}" for p in _DERIVED}:
            return base
    return cls


def takes_hooks(module: nn.Module) -> bool:
    """Whether hooks on this module fire; TorchScript ignores hooks."""
    return not isinstance(module, torch.jit.ScriptModule)
