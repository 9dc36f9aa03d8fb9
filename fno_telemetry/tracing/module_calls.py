"""What a followed forward consists of: calls of modules, by their canonical paths."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import parametrize

from fno_telemetry.canonical_paths import WRAPPERS, canonical_names
from fno_telemetry.tracing.fourier_calls import FourierCall
from fno_telemetry.tracing.lineage import UNKNOWN, Lineage

# What quantization puts into a layer: its weight and bias, what computes one, what looks at the output.
_QUANTIZING = ("_packed_params", "weight_fake_quant", "activation_post_process")
# Sharding and parametrization derive a class from the module's own, with its name behind one of these.
_MADE = ("FSDP", "DDP", "Parametrized")


@dataclass(eq=False)
class Call:
    """One call of one module: the `number`-th of its path in this batch. Call 0 is the whole batch."""

    index: int
    path: str
    number: int
    module: nn.Module | None
    parent: "Call | None"
    before: Lineage = UNKNOWN  # of everything that went in
    forward_transforms: list[FourierCall] = field(default_factory=list)
    inverse_transforms: list[FourierCall] = field(default_factory=list)
    spectral: bool = False
    input_overwritten: bool = False  # by the call itself, so that it is no longer what went in

    @property
    def outermost(self) -> "Call":
        """The call around it that nothing but the batch is around."""
        call = self
        while call.parent is not None and call.parent.index:
            call = call.parent
        return call

    @property
    def modes(self) -> torch.Tensor | None:
        """Which coefficients it let through, as a mask; None unless it did one inverse transform."""
        return self.inverse_transforms[0].modes if len(self.inverse_transforms) == 1 else None

    @property
    def runs_now(self) -> bool:
        """Whether what runs is its own, and not that of a module without hooks, as of a copy."""
        return self.module is not None and running_module() in (self.module, None)

    @property
    def is_own_code(self) -> bool:
        """Whether what runs is its own, and not just how a module of torch works inside."""
        torch_made = self.module is not None and written_class(self.module).__module__.startswith("torch.nn")
        return not torch_made and self.runs_now

    @property
    def bit(self) -> int:
        """This call alone as a mask."""
        return 1 << self.index


def distinct_paths(calls: Iterable[Call]) -> tuple[str, ...]:
    """Return the paths of the calls, each once."""
    return tuple(dict.fromkeys(call.path for call in calls))


def find_wrapped(module: nn.Module) -> nn.Module | None:
    """Return what a wrapper (for compiling, parallel work, …) holds; None for any other module."""
    for name, child in module.named_children():
        # Anybody may call a child "module"; the other names are given by wrappers alone.
        if name in WRAPPERS and (name != "module" or type(module).__module__.startswith("torch.")):
            return child
    return None


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module inside of all wrappers around it."""
    while (inner := find_wrapped(module)) is not None:
        module = inner
    return module


def paths_by_module(model: nn.Module) -> dict[int, tuple[str, ...]]:
    """Return the canonical paths by id of every module that computes; a shared module has several.

    Wrappers hand everything on, and what parametrizes or quantizes a layer is part of it: they are left out.
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
    return {key: tuple(dict.fromkeys(found)) for key, found in paths.items()}


def running_module() -> nn.Module | None:
    """Return the module whose forward runs on this thread, with hooks or without; None outside of any."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is nn.Module._call_impl.__code__:
            module: nn.Module = frame.f_locals["self"]
            return module
        frame = frame.f_back
    return None


def written_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that somebody wrote, where torch has put a class of its own making over it."""
    found = type(module)
    for base in found.__bases__:
        if found.__module__.startswith("torch.") and found.__name__ in {f"{p}{base.__name__}" for p in _MADE}:
            return base
    return found


def takes_hooks(module: nn.Module) -> bool:
    """Whether hooks on this module fire; TorchScript runs without them."""
    return not isinstance(module, torch.jit.ScriptModule)
