"""The gradient pass: runs a copy of each batch and differentiates the user's loss, leaving no trace.

Gradients come from `torch.autograd.grad`, which does not write `.grad`, and from tensor hooks on outputs.
Backward hooks of others on parameters and modules do not run.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fno_telemetry.isolation.backward_hooks import silence_module_hooks
from fno_telemetry.isolation.compilation import eager
from fno_telemetry.isolation.preservation import preserve
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring import losses
from fno_telemetry.measuring.accumulators import MemoryBudget, States
from fno_telemetry.measuring.awaited_gradients import AwaitedGradients, BlockKey, Branches, Gradients
from fno_telemetry.measuring.batch_runs import BatchRun
from fno_telemetry.measuring.collector import Key
from fno_telemetry.measuring.losses import Loss
from fno_telemetry.measuring.planned_forward import PlannedForward
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.subjects import ParameterGradient
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.nested_tensors import copy_tensors


class AddsUp(Protocol):
    """What adds up numbers over processes."""

    def add_up(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the sum of each number over the processes."""
        ...


class GradientPass:
    """Differentiates batch by batch; keeps the mean gradient of each parameter, and states of outputs."""

    def __init__(
        self,
        model: nn.Module,
        plan: MeasurementPlan,
        statistics: StatisticSet,
        names: frozenset[str],
        loss: Loss,
        budget: MemoryBudget,
    ) -> None:
        losses.require_gradients(model)
        self._seconds = 0.0
        self._model = model
        self._plan = plan
        self._names = names
        self._loss = loss
        self._trained = {id(p): p for p in model.parameters() if p.requires_grad}
        self._sums: dict[int, torch.Tensor] = {}  # samples times gradient, by parameter
        self._awaited = AwaitedGradients(model, statistics, names, budget, lambda: self._differentiating)
        self._values: list[torch.Tensor] = []  # the loss of each batch times its number of samples
        self._samples = 0
        self._size = 0  # the number of samples of the running batch
        self._follows = plan.why_traced is not None  # every forward, function by function
        self._differentiating = False

    def add(self, batch: Any, batch_run: BatchRun, size: int | None) -> None:
        """Run a batch of `size` samples and differentiate its loss; model and batch are unchanged.

        Raises the errors of `losses` and of the forward.
        """
        started = time.perf_counter()
        self._size = size or 1
        self._awaited.start_batch(self._size)
        loss = None if self._follows else self._run_planned(batch, batch_run)
        if loss is None:
            self._follows = True
            trace = ForwardTrace(
                self._model, self._awaited, self._plan.model_map.roles, within=self._plan.model_map.runs_whole
            )
            with self._prepared(), trace:
                own = copy_tensors(batch)
                selected = batch_run.select(own)
                with trace.batch():
                    output = batch_run.run(selected, own)
                loss = self._evaluate(output, own)
        self._values.append(loss.detach().to(_wide(loss)) * self._size)
        self._samples += self._size
        self._seconds += time.perf_counter() - started

    def _run_planned(self, batch: Any, batch_run: BatchRun) -> torch.Tensor | None:
        """Return the loss of a batch that was run as planned and differentiated; None if it was not."""
        planned = PlannedForward(self._model, self._plan, self._awaited, self._names, sums=False)
        with self._prepared(), planned:
            own = copy_tensors(batch)
            selected = batch_run.select(own)
            with planned.run(selected):
                output = batch_run.run(selected, own)
            return None if planned.deviation is not None else self._evaluate(output, own)

    def add_up(self, group: AddsUp) -> None:
        """Add up the gradients and losses of all processes, each of which calls this before `finish`."""
        loss = sum(map(float, on_host(self._values)))
        known = np.array([key in self._sums for key in self._trained], np.float64)
        parts = [np.array((self._samples, loss)), known]
        for key, parameter in self._trained.items():
            own = self._sums.get(key)
            size = parameter.numel() * (2 if parameter.is_complex() else 1)
            parts.append(np.zeros(size) if own is None else _as_numbers(own))
        sums = group.add_up(np.concatenate(parts))
        self._samples, self._values = int(sums[0]), [torch.tensor(sums[1])]
        at = 2 + len(known)
        for is_known, (key, parameter) in zip(sums[2:at] > 0, self._trained.items(), strict=True):
            size = parameter.numel() * (2 if parameter.is_complex() else 1)
            numbers, at = torch.from_numpy(sums[at : at + size]), at + size
            if is_known:
                whole = torch.view_as_complex(numbers.reshape(-1, 2)) if parameter.is_complex() else numbers
                self._sums[key] = whole.reshape(parameter.shape).to(parameter.device)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        """Run the block with gradients and without hooks of others, and forget its outputs at the end."""
        try:
            with (
                preserve(self._model),
                silence_module_hooks(self._model, lambda: self._differentiating),
                eager(),
                torch.inference_mode(False),
                torch.enable_grad(),
            ):
                yield
        finally:
            self._awaited.forget()

    def _evaluate(self, output: Any, batch: Any) -> torch.Tensor:
        """Return the loss, after it was differentiated."""
        loss = losses.evaluate(self._loss, output, batch, bool(self._trained))
        self._differentiate(loss)
        return loss

    def finish(self, outputs: Iterable[Key], blocks: Mapping[BlockKey, Branches]) -> Gradients:
        """Return the gradients of these outputs and blocks of the measured forward."""
        parameters = {
            key: ParameterGradient(
                parameter, self._sums.pop(key).div_(self._samples) if key in self._sums else None
            )
            for key, parameter in self._trained.items()
        }
        modules = self._awaited.finish_outputs(
            outputs, "the output was not returned again in the gradient pass"
        )
        self._awaited.add_parameters(modules, parameters)
        by_block = {key: self._awaited.finish_block(branches, parameters) for key, branches in blocks.items()}
        States.move_to_host([*modules.values(), *by_block.values()])
        loss = sum(map(float, on_host(self._values))) / self._samples
        warnings = []
        if not self._trained:
            warnings.append("no parameter requires a gradient, so the loss has no parameter gradients")
        if not math.isfinite(loss):
            warnings.append(f"the loss is not finite: {loss}")
        return Gradients(
            loss=loss if math.isfinite(loss) else None,
            modules=modules,
            blocks=by_block,
            failures=self._awaited.list_failures(),
            warnings=tuple(warnings),
            seconds=self._seconds,
        )

    def _differentiate(self, loss: torch.Tensor) -> None:
        """Differentiate the loss and add up the gradients."""
        self._differentiating = True
        try:
            by_leaf = losses.compute_gradients(loss)
        finally:
            self._differentiating = False
        with torch.no_grad(), torch._C._DisableAutocast():
            for key in self._trained.keys() & by_leaf.keys():
                gradient = by_leaf[key]
                if key not in self._sums:
                    self._sums[key] = torch.zeros_like(gradient, dtype=_wide(gradient))
                self._sums[key].add_(gradient, alpha=self._size)
            for place, leaf in self._awaited.leaves.items():
                self._awaited.note_leaf(place, by_leaf.get(id(leaf)))
            self._awaited.end_batch()


def _as_numbers(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    numbers: npt.NDArray[np.float64] = parts.detach().to("cpu", torch.float64).numpy().reshape(-1)
    return numbers


def _wide(tensor: torch.Tensor) -> torch.dtype:
    """Return the precision for sums: at least float64, or that of the tensor on devices without float64."""
    return tensor.dtype if tensor.device.type == "mps" else torch.promote_types(tensor.dtype, torch.float64)
