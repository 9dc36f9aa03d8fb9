"""What spectral calls keep of the fields that they are given, and what may decide it."""

from dataclasses import dataclass, replace
from types import NoneType

from torch import nn

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.mapping.call_inputs import read_field_shape
from fno_telemetry.tracing.fourier_calls import KeptModes
from fno_telemetry.tracing.module_calls import Call

Settings = tuple[tuple[object, ...], ...]
"""Names and values."""


@dataclass(frozen=True, eq=False)
class SpectralCall:
    """What a spectral call keeps of a field whose first input has this shape, without its first axis.

    `settings` are those of the module then. `available` are the numbers of frequencies that the field has.
    `decided` says whether every mode was seen to be kept or removed; a field without some frequencies does
    not tell.
    """

    shape: tuple[int, ...]
    settings: Settings
    modes: KeptModes | None
    available: tuple[int, ...]
    selects: bool = False  # it chooses modes by their size
    decided: bool = True


def describe_spectral(call: Call, inputs: object) -> SpectralCall:
    """Return what a spectral call that has just ended keeps of its input."""
    modes = call.modes
    decided = modes is None or bool((modes.mask | modes.removed).all())
    shape, settings = read_field_shape(inputs), read_settings(call.module)
    return SpectralCall(shape, settings, modes, call.available, call.selects, decided)


def read_settings(module: nn.Module | None) -> Settings:
    """Return what may decide which modes a module keeps: its plain attributes and its sizes of weights."""
    if module is None:
        return ()
    own = vars(module)
    plain = [(name, _read_plain(value)) for name, value in own.items() if name not in _OF_TORCH]
    sizes = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
    # A mask of modes may be a buffer.
    buffers = [(name, id(buffer), count_writes(buffer)) for name, buffer in module.named_buffers()]
    return (*((name, value) for name, value in plain if value is not _NOT_PLAIN), *sizes, *buffers)


_OF_TORCH = frozenset(vars(nn.Module()))
_NOT_PLAIN = object()


def _read_plain(value: object) -> object:
    """Return a number, text or tuple for a plain value or a list or dict of such; else `_NOT_PLAIN`."""
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        parts = tuple(map(_read_plain, value))
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else parts
    return value if isinstance(value, int | float | str | NoneType) else _NOT_PLAIN


def plan_spectral(call: Call, inputs: object) -> SpectralCall:
    """Return what a spectral call keeps; not decided where zero weights may pass for cut modes."""
    found = describe_spectral(call, inputs)
    return replace(found, decided=found.decided and not _has_zero_weights(call.module))


def _has_zero_weights(module: nn.Module | None) -> bool:
    """Whether weights of a module are zero; a bias, with one axis longer than 1, is no weight.

    The weights of a mode that is zero are zero in every channel, and channels are the first or the last axis.
    """
    for parameter in module.parameters() if module is not None else ():
        if sum(size > 1 for size in parameter.shape) > 1:
            of_one_channel = parameter.detach()[0], parameter.detach()[..., 0]
            if any(bool((values == 0).any()) for values in of_one_channel):
                return True
    return False
