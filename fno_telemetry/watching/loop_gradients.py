"""The gradients of a training loop's own backward: of outputs as they arrive, of parameters at its end."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.measuring.accumulators import MemoryBudget, States
from fno_telemetry.measuring.awaited_gradients import (
    UNKNOWN_SCALE,
    AwaitedGradients,
    BlockKey,
    Branches,
    Gradients,
)
from fno_telemetry.measuring.collector import Key
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.processes.group import is_first_process
from fno_telemetry.records import Value
from fno_telemetry.statistics.contract import MergedBy, SummedState
from fno_telemetry.statistics.norms import frobenius_norm
from fno_telemetry.statistics.process_shares import is_spread, own_share
from fno_telemetry.statistics.subjects import ParameterGradient
from fno_telemetry.tracing.events import CallEnded, Event
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.parameter_names import name_parameters
from fno_telemetry.wording import describe_error

NO_BACKWARD = "no backward of this step left gradients in the parameters"
SPREAD = "parameters are spread over several processes"
COMPILED = "the model is compiled, so gradients of its outputs are not seen"


@dataclass(frozen=True)
class GradientNorm(SummedState):
    """The norm of a gradient, or of the share of a process."""

    norm: Annotated[torch.Tensor, MergedBy(torch.hypot)]


@dataclass(frozen=True)
class _AloneGradient:
    """The norm of the gradient of a parameter, or the reason why it is not known."""

    norm: GradientNorm | None
    reason: str | None = None
    is_share: bool = False  # of this process


class LoopGradients:
    """A listener of the forwards of one step, which measures the gradients that the loop computes.

    Those of parameters are read when a backward has ended, after their reduction over processes and before
    anything clips or clears them; the last backward of the step counts that leaves gradients in parameters.
    `scale` returns the factor by which the loss was multiplied, None if it is unknown; `alone` are the names
    of parameters whose norms are kept.
    Without `sees_outputs` it listens to forwards that are not the loop's own: see `watch_output`. With
    `takes_shares`, of parameters that are spread over processes the share of this one is measured, and of all
    others what the first process has, so that the numbers of all processes add up.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: StatisticSet,
        names: frozenset[str],
        budget: MemoryBudget,
        scale: Callable[[], float | None],
        alone: Collection[str],
        sees_outputs: bool = True,
        takes_shares: bool = False,
    ) -> None:
        self.seconds = 0.0
        self._model = model
        self._statistics = statistics
        self._budget = budget
        self._scale = scale
        self._alone = alone
        self._sees_outputs = sees_outputs
        self._takes_shares = takes_shares
        awaited = names if sees_outputs else frozenset[str]()
        self._awaited = AwaitedGradients(model, statistics, awaited, budget, self._arrives, scale)
        self._task = -1  # the backward whose end is awaited
        self._before: list[tuple[int, int]] = []  # which gradients the parameters had when it began
        self._handles: list[RemovableHandle] = []
        self._failures: dict[str, str] = {}
        self._outputs: dict[Key, None] = {}  # in order
        self._blocks: Mapping[BlockKey, Branches] = {}
        self._of_modules: dict[Key, States] | None = None  # of the last backward
        self._of_blocks: dict[BlockKey, States] = {}
        self._of_alone: dict[str, _AloneGradient] = {}

    def on(self, event: Event) -> None:
        """Wait for the gradients of outputs; those of the model tell when a backward runs."""
        self._awaited.on(event)
        if self._sees_outputs and isinstance(event, CallEnded) and not event.call.path:
            self.watch_output(event.output)

    def watch_output(self, output: object) -> None:
        """Let the gradient of an output of the model tell when a backward runs."""
        for tensor in tensors_in(output):
            if tensor.requires_grad and not tensor.is_leaf:
                self._handles.append(tensor.register_hook(self._note_arrival))  # type: ignore[no-untyped-call]

    def expect(self, outputs: Iterable[Key], blocks: Mapping[BlockKey, Branches]) -> None:
        """Set which outputs and blocks have been measured in the forwards so far."""
        self._outputs |= dict.fromkeys(outputs)
        self._blocks = blocks

    def finish(self, loss: float | None) -> Gradients:
        """Return the gradients of the step."""
        if self._of_modules is None:
            self._awaited.give_up(NO_BACKWARD)
        else:
            self._awaited.end_batch()
        modules = self._awaited.finish_outputs(self._outputs, COMPILED)
        blocks = dict(self._of_blocks)
        if self._of_modules is None:
            for states in modules.values():
                states.mark_undefined("parameter_gradients", NO_BACKWARD)
            for block in self._blocks:
                blocks[block] = States(self._statistics, self._budget)
                blocks[block].mark_undefined("branch_gradients", NO_BACKWARD)
        else:
            for key, states in modules.items():
                if key in self._of_modules:
                    states.take_over(self._of_modules[key])
        States.move_to_host([*modules.values(), *blocks.values()])
        return Gradients(
            loss=loss,
            modules=modules,
            blocks=blocks,
            failures=self._failures | self._awaited.list_failures(),
            warnings=(),
            seconds=self.seconds,
        )

    @property
    def are_shares(self) -> bool:
        """Whether gradients of parameters are those of the share of this process."""
        return self._takes_shares and self._is_spread()

    def list_alone(self) -> dict[str, GradientNorm]:
        """Return the norms of the gradients of the `alone`, as far as they are known."""
        return {
            name: own.norm for name, own in self._of_alone.items() if own.norm is not None and own.is_share
        }

    def take_alone(self, norms: Mapping[str, GradientNorm]) -> None:
        """Take the norms of all processes."""
        for name, norm in norms.items():
            self._of_alone[name] = _AloneGradient(norm)

    def norm_of(self, name: str) -> tuple[Value, str | None]:
        """Return the norm of the gradient of one of the `alone`, or None and the reason."""
        own = self._of_alone.get(name)
        if own is None:
            return None, NO_BACKWARD
        if own.norm is None:
            return None, own.reason
        if own.is_share:
            return None, SPREAD
        norm = float(own.norm.norm)
        return (norm, None) if norm < float("inf") else (None, "the gradient is not finite")

    def forget(self) -> None:
        """Remove all hooks, and release all tensors."""
        self._awaited.forget()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _arrives(self) -> bool:
        self._note_arrival()
        return True

    def _note_arrival(self, *_: object) -> None:
        """Ask to be called when the running backward has ended."""
        with contextlib.suppress(Exception):
            task = torch._C._current_graph_task_id()
            if task != self._task:
                self._task = task
                self._before = self._identify_gradients()
                _when_ended(partial(_when_ended, self._backward_ended))

    def _backward_ended(self) -> None:
        started = time.perf_counter()
        self._task = -1
        try:
            with (
                torch._C.DisableTorchFunction(),
                torch.no_grad(),
                torch._C._DisableAutocast(),
            ):
                if self._identify_gradients() == self._before:
                    # It was for a value that the loop computes, such as a penalty of gradients.
                    self._awaited.discard()
                else:
                    self._awaited.commit()
                    self._measure_parameters()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, never raised into the backward
            self._failures["the parameters/gradients"] = describe_error(error)
        finally:
            self.seconds += time.perf_counter() - started

    def _measure_parameters(self) -> None:
        modules = {key: States(self._statistics, self._budget) for key in self._outputs}
        blocks = {key: States(self._statistics, self._budget) for key in self._blocks}
        scale = self._scale()
        has_shares = self._is_spread()
        reason = UNKNOWN_SCALE if scale is None else SPREAD if has_shares and not self._takes_shares else None
        if scale is None or reason is not None:
            for states in modules.values():
                states.mark_undefined("parameter_gradients", reason or UNKNOWN_SCALE)
            for states in blocks.values():
                states.mark_undefined("branch_gradients", reason or UNKNOWN_SCALE)
            self._of_alone = dict.fromkeys(self._alone, _AloneGradient(None, reason))
        else:
            trained = {
                id(parameter): self._find_gradient(parameter, scale, has_shares)
                for parameter in self._model.parameters()
                if parameter.requires_grad
            }
            self._awaited.add_parameters(modules, trained)
            blocks = {key: self._awaited.finish_block(own, trained) for key, own in self._blocks.items()}
            named = dict(name_parameters(self._model))
            self._of_alone = {
                name: _measure_alone(trained.get(id(named[name])), has_shares)
                for name in self._alone
                if name in named
            }
        self._of_modules, self._of_blocks = modules, blocks

    def _find_gradient(self, parameter: nn.Parameter, scale: float, has_shares: bool) -> ParameterGradient:
        """Return the gradient of a parameter; where some are spread, what this process counts of it."""
        gradient = parameter.grad
        if not has_shares:
            return ParameterGradient(parameter, _unscaled(gradient, scale))
        values = own_share(parameter)
        if values is parameter and not is_first_process():
            # It is the same in all processes, of which the first one counts.
            values = parameter.detach().reshape(-1)[:0]
            gradient = None
        share = None if gradient is None else own_share(gradient)
        return ParameterGradient(values, _unscaled(share, scale))

    def _identify_gradients(self) -> list[tuple[int, int]]:
        """Return what tells whether a gradient was added to or replaced."""
        gradients = [parameter.grad for parameter in self._model.parameters()]
        return [(-1, -1) if one is None else (id(one), count_writes(one)) for one in gradients]

    def _is_spread(self) -> bool:
        return any(map(is_spread, self._model.parameters()))


def _when_ended(body: Callable[[], None]) -> None:
    """Let a body be called when the running backward has ended, after what was asked for before."""
    torch.autograd.Variable._execution_engine.queue_callback(body)


def _unscaled(gradient: torch.Tensor | None, scale: float) -> torch.Tensor | None:
    return gradient if gradient is None or scale == 1 else gradient / scale


def _measure_alone(gradient: ParameterGradient | None, is_share: bool) -> _AloneGradient:
    if gradient is None:
        return _AloneGradient(None, "the parameter is frozen: its requires_grad is False")
    norm = torch.zeros((), dtype=torch.float64)
    if gradient.gradient is not None:
        norm = frobenius_norm(gradient.gradient)
    return _AloneGradient(GradientNorm(norm), is_share=is_share)
