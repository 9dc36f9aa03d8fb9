"""How far the parameters of a model move in a training run: in a step, and since the first record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fno_telemetry.records import FrozenMapping, ParameterRecord, Value
from fno_telemetry.statistics.activation import dtype_name
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.process_shares import is_spread, own_share
from fno_telemetry.statistics.shares import spread_places
from fno_telemetry.tracing.parameter_names import name_parameters

_COMPARED = 4096  # elements of a parameter, at most, that are compared with the first record


@dataclass(frozen=True)
class _First:
    """The compared elements of a parameter at the first record."""

    places: torch.Tensor | None  # None for all elements
    values: torch.Tensor


class ParameterMovement:
    """Compares the parameters of a model with copies: those before a step, and a sample of the first ones.

    Copies of all parameters exist only between `start_step` and `end_step`. Of a parameter that is spread
    over processes, the share of this one is compared. It is copied by `copy_shares`: within a forward, FSDP
    may put whole parameters in its place.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._first: dict[str, _First] = {}
        self._before: dict[str, torch.Tensor] = {}
        self._shares: dict[str, torch.Tensor] = {}
        self.spread = frozenset(name for name, parameter in name_parameters(model) if is_spread(parameter))

    def copy_shares(self) -> None:
        """Copy the shares of spread parameters as they are before the next step; not within a forward."""
        self._shares = {
            name: own_share(parameter).clone()
            for name, parameter in name_parameters(self._model)
            if name in self.spread and is_spread(parameter)
        }
        for name, share in self._shares.items():
            if name not in self._first:
                self._first[name] = _sample(share)

    def keep_first(self) -> None:
        """Keep a sample of each parameter that has none yet, with which later ones are compared."""
        for name, parameter in name_parameters(self._model):
            if name not in self._first and name not in self.spread:
                self._first[name] = _sample(parameter)

    def start_step(self) -> None:
        """Copy all parameters as they are before the step."""
        self._before = {
            name: parameter.detach().clone()
            for name, parameter in name_parameters(self._model)
            if parameter.requires_grad and name not in self.spread
        }
        self._before |= self._shares

    def forget_step(self) -> None:
        """Release the copies."""
        self._before = {}
        self._shares = {}

    def measure_updates(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return ‖after - before‖ and ‖before‖ of each trained parameter that was copied."""
        found = {}
        for name, parameter in name_parameters(self._model):
            before = self._before.get(name)
            if before is None or not parameter.requires_grad:
                continue
            after = own_share(parameter).detach()
            if before.shape == after.shape:
                found[name] = frobenius_norm(after - before), frobenius_norm(before)
        return found

    def measure_moves(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return ‖now - first‖ and ‖first‖ of the compared elements of each parameter."""
        found = {}
        for name, parameter in name_parameters(self._model):
            first, own = self._first.get(name), own_share(parameter)
            if first is not None and (first.places is not None or first.values.shape == own.shape):
                now = _take(own, first.places)
                change = now.to(_wide(now)) - first.values.to(_wide(now))
                found[name] = frobenius_norm(change), frobenius_norm(first.values)
        return found


def relate(change: float, size: float) -> tuple[Value, str | None]:
    """Return change / size, or None with the reason; 0 where nothing changed, whatever the size."""
    if not (math.isfinite(change) and math.isfinite(size)):
        return None, "a parameter is not finite"
    if change == 0:
        return 0.0, None
    return (change / size, None) if size else (None, "the parameter was zero")


def make_record(
    name: str, parameter: torch.Tensor, numbers: Mapping[str, tuple[Value, str | None]]
) -> ParameterRecord:
    """Return the record of a parameter with these numbers, each with the reason where it is None."""
    return ParameterRecord(
        name=name,
        shape=tuple(parameter.shape),
        dtype=dtype_name(parameter.dtype),
        stats=FrozenMapping({key: value for key, (value, _) in numbers.items()}),
        reasons=FrozenMapping({key: reason for key, (_, reason) in numbers.items() if reason is not None}),
    )


def _sample(parameter: torch.Tensor) -> _First:
    places = None
    if parameter.numel() > _COMPARED:
        places = spread_places(_COMPARED, parameter.numel(), parameter.device)
    return _First(places, _take(parameter, places).clone())


def _take(parameter: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    return parameter.detach() if places is None else parameter.detach().reshape(-1)[places]


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return tensor.dtype if tensor.device.type == "mps" else torch.promote_types(tensor.dtype, torch.float64)
