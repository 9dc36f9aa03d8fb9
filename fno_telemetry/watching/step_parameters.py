"""What a record says of parameters: how far each moved in its step and since the first record, and norms."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import nn

from fno_telemetry.records import FrozenMapping, ModuleRecord, ParameterRecord, Value
from fno_telemetry.statistics.contract import MergedBy, SummedState
from fno_telemetry.statistics.gradients import trained_parameters
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.process_shares import own_share
from fno_telemetry.tracing.module_calls import modules_by_path
from fno_telemetry.tracing.parameter_names import name_parameters
from fno_telemetry.watching.loop_gradients import LoopGradients
from fno_telemetry.watching.parameter_movement import (
    ParameterMovement,
    make_record,
    relate,
)

_NO_UPDATE = "the parameters were not copied before the step"
_SPREAD = "the parameter is spread over several processes"
_FROZEN = "the parameter is frozen: its requires_grad is False"
_RESIZED = "the parameter changed its size"


@dataclass(frozen=True)
class ParameterNorms(SummedState):
    """Norms of a parameter, or of the share of a process.

    NaN is what is not known, infinity the norm of what is not finite.
    """

    norms: Annotated[torch.Tensor, MergedBy(torch.hypot)]  # see _Norms


@dataclass(frozen=True)
class _Norms:
    change: float  # in this step
    before: float
    moved: float  # since the first record, of the compared elements
    first: float
    weight: float


class StepParameters:
    """Measures the parameters of a model around one step; `names` are the modules that are measured."""

    def __init__(self, model: nn.Module, movement: ParameterMovement, names: Collection[str]) -> None:
        self._model = model
        self._movement = movement
        self._are_copied = False
        modules = modules_by_path(model)
        covered = {id(p) for name in names if name in modules for p in trained_parameters(modules[name])}
        # Names, because FSDP puts other objects in the place of parameters.
        self.alone = frozenset(name for name, p in name_parameters(model) if id(p) not in covered)
        self._own_names = _name_own(model)

    def start(self) -> None:
        """Copy all parameters, once."""
        self._movement.start_step()
        self._are_copied = True

    def forget(self) -> None:
        """Release the copies."""
        if self._are_copied:
            # Once: another measurement may have made copies since.
            self._are_copied = False
            self._movement.forget_step()

    def measure(self) -> dict[str, ParameterNorms]:
        """Return the norms of each parameter after the update, in host memory."""
        updates = self._movement.measure_updates() if self._are_copied else {}
        moves = self._movement.measure_moves()
        found = {}
        for name, parameter in name_parameters(self._model):
            weight = frobenius_norm(own_share(parameter)) if name in self.alone else None
            found[name] = [*updates.get(name, (None, None)), *moves.get(name, (None, None)), weight]
        return {
            name: ParameterNorms(torch.tensor(list(map(_as_number, parts)), dtype=torch.float64))
            for name, parts in on_host(found).items()
        }

    def list_spread(self, norms: Mapping[str, ParameterNorms]) -> dict[str, ParameterNorms]:
        """Return those of parameters of which this process has a share."""
        return {name: norms[name] for name in norms if name in self._movement.spread}

    def with_updates(
        self, modules: tuple[ModuleRecord, ...], norms: Mapping[str, ParameterNorms]
    ) -> tuple[ModuleRecord, ...]:
        """Return the records with ‖update‖ / ‖weights‖ of each module, in that of its first output."""
        seen = set()
        changed = []
        for record in modules:
            own = self._own_names.get(record.name, ())
            if not own or record.name in seen:
                changed.append(record)
                continue
            seen.add(record.name)
            value, reason = self._relate_update(own, norms)
            reasons = record.reasons if reason is None else {**record.reasons, "update_to_weight": reason}
            changed.append(
                replace(
                    record,
                    stats=FrozenMapping({**record.stats, "update_to_weight": value}),
                    reasons=FrozenMapping(reasons),
                )
            )
        return tuple(changed)

    def list_records(
        self, norms: Mapping[str, ParameterNorms], gradients: LoopGradients | None
    ) -> tuple[ParameterRecord, ...]:
        """Return how far every parameter moved; more of those that belong to no measured module."""
        records = []
        for name, parameter in name_parameters(self._model):
            numbers: dict[str, tuple[Value, str | None]] = {}
            if name not in norms:
                records.append(make_record(name, parameter, {"moved": (None, _SPREAD)}))
                continue
            own = _read(norms[name])
            if name in self.alone:
                is_finite = math.isfinite(own.weight)
                reason = None if is_finite else "the parameter is not finite"
                numbers["weight_norm"] = (own.weight if is_finite else None, reason)
                numbers["update_to_weight"] = self._relate_update([name], norms)
                if gradients is not None:
                    numbers["grad_norm"] = gradients.norm_of(name)
            is_known = not math.isnan(own.first)
            numbers["moved"] = relate(own.moved, own.first) if is_known else (None, _RESIZED)
            records.append(make_record(name, parameter, numbers))
        return tuple(records)

    def _relate_update(
        self, names: Collection[str], norms: Mapping[str, ParameterNorms]
    ) -> tuple[Value, str | None]:
        if not self._are_copied:
            return None, _NO_UPDATE
        measured = [_read(norms[name]) for name in names if name in norms]
        known = [own for own in measured if not math.isnan(own.before)]
        if not known:
            return None, _SPREAD if any(name not in norms for name in names) else _FROZEN
        change = math.hypot(*(own.change for own in known))
        return relate(change, math.hypot(*(own.before for own in known)))


def _name_own(model: nn.Module) -> dict[str, list[str]]:
    """Return the names of the parameters of each module's own weights, by its path."""
    named = {id(p): name for name, p in name_parameters(model)}
    return {
        path: [named[id(p)] for p in trained_parameters(module)]
        for path, module in modules_by_path(model).items()
    }


def _as_number(norm: torch.Tensor | None) -> float:
    if norm is None:
        return math.nan
    number = float(norm)
    return math.inf if math.isnan(number) else number


def _read(norms: ParameterNorms) -> _Norms:
    return _Norms(*norms.norms.tolist())
