"""The gradient pass: runs a copy of each batch and differentiates the user's loss, leaving no trace.

Gradients come from `torch.autograd.grad`, which does not write `.grad`, and from tensor hooks on outputs.
Backward hooks of others on parameters and modules do not run.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.backward_hooks import silence_module_hooks
from fno_telemetry.isolation.compilation import eager
from fno_telemetry.isolation.preservation import preserve
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring import losses
from fno_telemetry.measuring.accumulators import MemoryBudget, States
from fno_telemetry.measuring.collector import Key
from fno_telemetry.measuring.losses import Loss
from fno_telemetry.measuring.planned_forward import PlannedForward
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.statistics.gradients import trained_parameters
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.subjects import (
    BranchGradients,
    OutputGradient,
    ParameterGradient,
    ParameterGradients,
)
from fno_telemetry.tracing.events import ActivationCalled, CallEnded, Event, Failed
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.nested_tensors import copy_tensors, items

BlockKey = tuple[str, int]


@dataclass(frozen=True)
class Branches:
    """The modules of a block's branches, by path."""

    spectral: tuple[str, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class Gradients:
    """The results of a gradient pass: the states of each output and block, and the loss if it is finite."""

    loss: float | None
    modules: Mapping[Key, States]
    blocks: Mapping[BlockKey, States]
    failures: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: float


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
        self._failures: dict[str, str] = {}
        self._statistics = statistics
        self._budget = budget
        self._model = model
        self._plan = plan
        self._names = names
        self._loss = loss
        self._trained = {id(p): p for p in model.parameters() if p.requires_grad}
        self._parameter_names = {id(p): name.rpartition(".")[2] for name, p in model.named_parameters()}
        self._modules: dict[str, nn.Module] = {}  # the modules that were called, by path
        self._sums: dict[int, torch.Tensor] = {}  # samples times gradient, by parameter
        self._outputs: dict[Key, States] = {}
        self._values: list[torch.Tensor] = []  # the loss of each batch times its number of samples
        self._samples = 0
        self._size = 0  # the number of samples of the running batch
        self._awaited: dict[Key, _Awaited] = {}  # outputs of this batch whose gradient has not arrived yet
        self._leaves: dict[Key, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._follows = plan.why_traced is not None  # every forward, function by function
        self._differentiating = False

    def add(self, batch: Any, run: Callable[[Any], object], size: int | None) -> None:
        """Run a batch of `size` samples and differentiate its loss; model and batch are unchanged.

        Raises the errors of `losses` and of the forward.
        """
        started = time.perf_counter()
        self._size = size or 1
        loss = None if self._follows else self._run_planned(batch, run)
        if loss is None:
            self._follows = True
            trace = ForwardTrace(
                self._model, self, self._plan.model_map.roles, within=self._plan.model_map.runs_whole
            )
            with self._prepared(), trace:
                own = copy_tensors(batch)
                with trace.batch():
                    output = run(own)
                loss = self._evaluate(output, own)
        self._values.append(loss.detach().to(_wide(loss)) * self._size)
        self._samples += self._size
        self._seconds += time.perf_counter() - started

    def _run_planned(self, batch: Any, run: Callable[[Any], object]) -> torch.Tensor | None:
        """Return the loss of a batch that was run as planned and differentiated; None if it was not."""
        planned = PlannedForward(self._model, self._plan, self, self._names, sums=False)
        with self._prepared(), planned:
            own = copy_tensors(batch)
            with planned.run(own):
                output = run(own)
            return None if planned.deviation is not None else self._evaluate(output, own)

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
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self._awaited.clear()
            self._leaves.clear()

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
        modules = self._of_modules(outputs, parameters)
        by_block = {key: self._of_block(branches, parameters) for key, branches in blocks.items()}
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
            failures={f"{where}/gradients": line for where, line in self._all_failures(modules).items()},
            warnings=tuple(warnings),
            seconds=self._seconds,
        )

    def on(self, event: Event) -> None:
        """Register outputs whose gradients are needed; the measured forward handles all other events."""
        match event:
            case CallEnded():
                call = event.call
                if call.module is not None:
                    self._modules.setdefault(call.path, call.module)
                if call.path in self._names:
                    for item, tensor in items(event.output):
                        self._wait((call.path, call.number, item), tensor)
            case ActivationCalled():
                if event.path in self._names:
                    self._wait((event.path, event.number, None), event.output)
            case Failed():
                self._failures.setdefault(event.where or "the model", event.line)

    def _of_modules(
        self, outputs: Iterable[Key], parameters: Mapping[int, ParameterGradient]
    ) -> dict[Key, States]:
        modules: dict[Key, States] = {}
        measured = set()
        for key in outputs:
            if key not in self._outputs:
                self._states_of(key).mark_undefined(
                    "output_gradient", "the output was not returned again in the gradient pass"
                )
            modules[key] = states = self._outputs[key]
            module = self._modules.get(key[0])
            # The weights of a module belong to the record of its first output.
            if module is not None and key[0] not in measured:
                measured.add(key[0])
                states.add("parameter_gradients", self._collect(trained_parameters(module), parameters))
        return modules

    def _of_block(self, branches: Branches, parameters: Mapping[int, ParameterGradient]) -> States:
        states = States(self._statistics, self._budget)
        sides = (self._parameters_of(paths) for paths in (branches.spectral, branches.local))
        subject = BranchGradients(*(self._collect(side, parameters) for side in sides))
        states.add("branch_gradients", subject)
        return states

    def _all_failures(self, modules: Mapping[Key, States]) -> dict[str, str]:
        failures = dict(self._failures)
        for (name, _, _), states in modules.items():
            for failure in states.failures.values():
                failures.setdefault(name, failure)
        return failures

    def _states_of(self, key: Key) -> States:
        return self._outputs.setdefault(key, States(self._statistics, self._budget))

    def _wait(self, key: Key, tensor: torch.Tensor) -> None:
        if tensor.is_inference():
            reason = "the output was made in inference mode, where gradients are not available"
            self._states_of(key).mark_undefined("output_gradient", reason)
        elif not tensor.requires_grad:
            reason = (
                "the output does not require a gradient: it is detached, or made without trainable values"
            )
            self._states_of(key).mark_undefined("output_gradient", reason)
        elif tensor.is_leaf:
            # A parameter or an input: tensors that outlive the batch get no hook.
            self._leaves[key] = tensor
        else:
            self._awaited[key] = _Awaited(tuple(tensor.shape), tensor.device)
            hook = partial(self._arrived, key)
            self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    def _arrived(self, key: Key, gradient: torch.Tensor | None) -> None:
        # A loss that computes gradients itself triggers this hook earlier with other gradients.
        if not self._differentiating or gradient is None or key not in self._awaited:
            return
        with torch.no_grad(), torch._C._DisableAutocast():
            self._note(key, self._awaited.pop(key), gradient)

    def _note(self, key: Key, awaited: "_Awaited", gradient: torch.Tensor | None) -> None:
        subject = OutputGradient(gradient, awaited.shape, self._size, awaited.device)
        self._states_of(key).add("output_gradient", subject)

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
            for place, leaf in self._leaves.items():
                self._note(place, _Awaited(tuple(leaf.shape), leaf.device), by_leaf.get(id(leaf)))
            # The loss does not depend on the outputs that got no gradient.
            for place, awaited in self._awaited.items():
                self._note(place, awaited, None)

    def _parameters_of(self, paths: Iterable[str]) -> Iterator[nn.Parameter]:
        """Yield the parameters of these modules and of their submodules, each once."""
        modules = [self._modules[path] for path in paths if path in self._modules]
        yield from {id(p): p for module in modules for p in module.parameters()}.values()

    def _collect(
        self, parameters: Iterable[nn.Parameter], known: Mapping[int, ParameterGradient]
    ) -> ParameterGradients:
        """Return these parameters with their gradients, or the name of the first frozen one."""
        gradients = []
        for parameter in parameters:
            if (own := known.get(id(parameter))) is None:
                return ParameterGradients((), self._parameter_names.get(id(parameter), ""))
            gradients.append(own)
        return ParameterGradients(tuple(gradients))


@dataclass(frozen=True)
class _Awaited:
    """An output whose gradient has not arrived yet."""

    shape: tuple[int, ...]
    device: torch.device


def _wide(tensor: torch.Tensor) -> torch.dtype:
    """Return the precision for sums: at least float64, or that of the tensor on devices without float64."""
    return tensor.dtype if tensor.device.type == "mps" else torch.promote_types(tensor.dtype, torch.float64)
