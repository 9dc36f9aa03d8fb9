"""The pass with gradients: each batch once more, differentiated by the user's loss, and nothing left of it.

Gradients are taken by `torch.autograd.grad`, which writes no `.grad`, and seen on their way by tensor hooks.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch.utils.hooks import RemovableHandle

import torch
from fno_telemetry.isolation.compilation import eager
from fno_telemetry.isolation.preservation import preserve
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.measuring import losses
from fno_telemetry.measuring.collector import Collector, Key
from fno_telemetry.measuring.losses import Loss
from fno_telemetry.statistics import gradients
from fno_telemetry.statistics.contract import Undefined, merge_states, on_host
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.nested_tensors import copy_tensors, items
from torch import nn


class GradientPass:
    """Differentiates batch by batch; keeps the mean gradient of each parameter, and of outputs only norms."""

    def __init__(self, model: nn.Module, model_map: ModelMap, names: frozenset[str], loss: Loss) -> None:
        losses.require_gradients(model)
        self.seconds = 0.0
        self.errors: dict[str, BaseException] = {}
        self.warnings: list[str] = []
        self._model = model
        self._map = model_map
        self._names = names
        self._loss = loss
        self._trained = {id(p): p for p in model.parameters() if p.requires_grad}
        self._parameter_names = {id(p): name.rpartition(".")[2] for name, p in model.named_parameters()}
        self._modules: dict[str, nn.Module] = {}  # what was called, by path
        self._sums: dict[int, torch.Tensor] = {}  # samples times gradient, by parameter
        self._outputs: dict[Key, Any] = {}  # states
        self._values: list[torch.Tensor] = []  # of each batch, times its samples
        self._samples = 0
        self._size = 0  # of the batch that runs
        self._awaited: dict[Key, _Awaited] = {}
        self._leaves: dict[Key, torch.Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._differentiating = False

    def add(self, batch: Any, run: Callable[[Any], object], size: int | None) -> None:
        """Run a batch of `size` samples and differentiate its loss; model and batch stay as they were.

        Raises what `losses` and the forward raise.
        """
        started = time.perf_counter()
        self._size = size or 1
        trace = ForwardTrace(self._model, self, self._map.roles, within=self._map.runs_whole)
        try:
            with preserve(self._model), eager(), torch.inference_mode(False), torch.enable_grad():
                own = copy_tensors(batch)
                with trace, trace.batch():
                    output = run(own)
                loss = losses.evaluate(self._loss, output, own, bool(self._trained))
                self._take(loss)
        finally:
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self._awaited.clear()
            self._leaves.clear()
        self._values.append(loss.detach().to(_wide(loss)) * self._size)
        self._samples += self._size
        self.seconds += time.perf_counter() - started

    def finish(self, collector: Collector) -> float | None:
        """Hand what was found to the modules and blocks of `collector`; return the loss if finite."""
        parameters = {
            key: gradients.parameter_gradient(
                parameter, self._sums.pop(key).div_(self._samples) if key in self._sums else None
            )
            for key, parameter in self._trained.items()
        }
        outputs, parameters, values = on_host((self._outputs, parameters, self._values))
        told = set()
        for key, accumulator in collector.modules.items():
            state = outputs.get(key, Undefined("it was not returned again when gradients were taken"))
            found = [gradients.summarize_output(state, self._samples)]
            module = self._modules.get(key[0])
            if module is not None and key[0] not in told:
                told.add(key[0])
                if (own := self._merged(gradients.trained_parameters(module), parameters)) is not None:
                    found.append(gradients.summarize_parameters(own))
            accumulator.gradients = tuple(found)
        for block in collector.blocks.values():
            spectral, local = (self._parameters_of(paths) for paths in (block.spectral, block.local))
            states = self._merged(spectral, parameters), self._merged(local, parameters)
            block.gradients = (gradients.summarize_branches(*states),)
        for where, error in self.errors.items():
            collector.failed(f"{where}/gradients", error)
        loss = sum(map(float, values)) / self._samples
        if not self._trained:
            self.warnings.append("no parameter requires a gradient, so none of the loss is known")
        if not math.isfinite(loss):
            self.warnings.append(f"the loss is not finite: {loss}")
            return None
        return loss

    def call_ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        """Wait for the gradients of what a module returned."""
        if call.module is not None:
            self._modules.setdefault(call.path, call.module)
        if call.path in self._names:
            for item, tensor in items(output):
                self._wait((call.path, call.number, item), tensor)

    def activation_called(self, parent: Call, name: str, number: int, output: torch.Tensor) -> None:
        """Wait for the gradient of what an activation function returned."""
        path = f"{parent.path}#{name}"
        if path in self._names:
            self._wait((path, number, None), output)

    def branches_added(self, *_: object) -> None:
        """The measured forward tells."""

    def residual_added(self, *_: object) -> None:
        """The measured forward tells."""

    def padded(self, amounts: tuple[int, ...]) -> None:
        """The measured forward tells."""

    def overwriting(self, target: torch.Tensor) -> None:
        """A tensor's hook stays with the values that it had when it was hooked."""

    def failed(self, where: str, error: BaseException) -> None:
        """Remember the first failure at each place."""
        self.errors.setdefault(where or "the model", error)

    def _wait(self, key: Key, tensor: torch.Tensor) -> None:
        if tensor.is_inference():
            self._note(key, Undefined("it was made in inference mode, where nothing takes a gradient"))
        elif not tensor.requires_grad:
            self._note(
                key, Undefined("it takes no gradient: it is detached, or made of nothing that requires one")
            )
        elif tensor.is_leaf:
            # A parameter, or what went in: no hook is put on what outlives the batch.
            self._leaves[key] = tensor
        else:
            awaited = self._awaited[key] = _Awaited(tensor)
            hook = partial(self._arrived, key[0], awaited)
            self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    def _arrived(self, where: str, awaited: "_Awaited", gradient: torch.Tensor | None) -> None:
        # A loss that differentiates for itself sends other gradients this way before.
        if not self._differentiating or gradient is None:
            return
        try:
            with torch.no_grad(), torch._C._DisableAutocast():
                awaited.norm = gradients.frobenius_norm(gradient)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it may not cost the other gradients
            self.failed(where, error)
            awaited.norm = Undefined(f"measuring raised {type(error).__name__}")

    def _note(self, key: Key, state: Any) -> None:
        self._outputs[key] = merge_states(self._outputs[key], state) if key in self._outputs else state

    def _take(self, loss: torch.Tensor) -> None:
        """Differentiate, and keep what is to be kept of the gradients."""
        self._differentiating = True
        try:
            found = losses.gradients_by_leaf(loss)
        finally:
            self._differentiating = False
        with torch.no_grad(), torch._C._DisableAutocast():
            for key in self._trained.keys() & found.keys():
                gradient = found[key]
                if key not in self._sums:
                    self._sums[key] = torch.zeros_like(gradient, dtype=_wide(gradient))
                self._sums[key].add_(gradient, alpha=self._size)
            for place, leaf in self._leaves.items():
                awaited = self._awaited[place] = _Awaited(leaf)
                if id(leaf) in found:
                    awaited.norm = gradients.frobenius_norm(found[id(leaf)])
            for place, awaited in self._awaited.items():
                if isinstance(awaited.norm, Undefined):
                    self._note(place, awaited.norm)
                else:
                    self._note(place, gradients.output_gradient(awaited.norm, awaited.shape, self._size))

    def _parameters_of(self, paths: Iterable[str]) -> Iterator[nn.Parameter]:
        """Yield the parameters of these modules and of all below them, each once."""
        modules = [self._modules[path] for path in paths if path in self._modules]
        yield from {id(p): p for module in modules for p in module.parameters()}.values()

    def _merged(
        self, parameters: Iterable[nn.Parameter], states: dict[int, gradients.ParameterGradient]
    ) -> gradients.ParameterGradient | Undefined | None:
        """Return the state of these parameters together; None without any, Undefined where one is frozen."""
        merged = None
        for parameter in parameters:
            if (state := states.get(id(parameter))) is None:
                name = self._parameter_names.get(id(parameter), "")
                return Undefined(f"the parameter {name!r} is frozen: its requires_grad is False")
            merged = state if merged is None else merged.merge(state)
        return merged


class _Awaited:
    """An output whose gradient is to come; none comes where the loss does not depend on it: 0."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape = tuple(tensor.shape)
        self.norm: torch.Tensor | Undefined = torch.zeros((), device=tensor.device)


def _wide(tensor: torch.Tensor) -> torch.dtype:
    """Return the precision for sums: that of the tensor, or float64 where the device has it."""
    return tensor.dtype if tensor.device.type == "mps" else torch.promote_types(tensor.dtype, torch.float64)
