"""The gradients of the outputs of a forward, measured by tensor hooks as they arrive, and of parameters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.measuring.accumulators import MemoryBudget, States
from fno_telemetry.measuring.collector import Key
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.statistics.gradients import trained_parameters
from fno_telemetry.statistics.subjects import (
    BranchGradients,
    OutputGradient,
    ParameterGradient,
    ParameterGradients,
)
from fno_telemetry.tracing.events import ActivationCalled, CallEnded, Event, Failed
from fno_telemetry.tracing.nested_tensors import items

BlockKey = tuple[str, int]

UNKNOWN_SCALE = "the loss is scaled for float16, by a factor that is not known: give the scaler"


@dataclass(frozen=True)
class Branches:
    """The modules of a block's branches, by path."""

    spectral: tuple[str, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class Gradients:
    """The results of a backward: the states of each output and block, and the loss if it is finite."""

    loss: float | None
    modules: Mapping[Key, States]
    blocks: Mapping[BlockKey, States]
    failures: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Awaited:
    """An output whose gradient has not arrived yet."""

    key: Key
    shape: tuple[int, ...]
    device: torch.device


class AwaitedGradients:
    """A listener of forwards that waits for the gradients of the outputs in `names`.

    A gradient that arrives while `takes` returns False is not the one of the loss: a loss may compute
    gradients itself. Those that arrived count once `commit` is called; a later one of the same output
    replaces an earlier one. `scale` is the factor by which the loss was multiplied, None if it is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: StatisticSet,
        names: frozenset[str],
        budget: MemoryBudget,
        takes: Callable[[], bool],
        scale: Callable[[], float | None] = lambda: 1.0,
    ) -> None:
        self.leaves: dict[Key, torch.Tensor] = {}  # outputs that are parameters or inputs
        self._statistics = statistics
        self._names = names
        self._budget = budget
        self._takes = takes
        self._scale = scale
        self._parameter_names = {id(p): name.rpartition(".")[2] for name, p in model.named_parameters()}
        self._modules: dict[str, nn.Module] = {}  # the modules that were called, by path
        self._outputs: dict[Key, States] = {}
        self._failures: dict[str, str] = {}
        self._awaited: dict[int, _Awaited] = {}  # by the order in which they appeared
        self._appeared = 0
        self._arriving: dict[int, States] = {}  # in the backward that runs
        self._arrived: dict[int, States] = {}
        self._handles: list[RemovableHandle] = []
        self._size: int | None = None  # the number of samples of the running batch

    def start_batch(self, size: int) -> None:
        """Prepare for a batch of so many samples, of which the loss is the mean."""
        self._size = size

    def on(self, event: Event) -> None:
        """Register outputs whose gradients are needed."""
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

    def end_batch(self) -> None:
        """Take what has arrived; the loss does not depend on outputs whose gradient did not arrive."""
        self.commit()
        for number, awaited in self._awaited.items():
            found = self._arrived.get(number)
            self._states_of(awaited.key).merge(self._measure(awaited, None) if found is None else found)
        self.forget()

    def commit(self) -> None:
        """Let the gradients count that arrived since the last call."""
        self._arrived |= self._arriving
        self._arriving = {}

    def discard(self) -> None:
        """Leave out the gradients that arrived since the last call of `commit`."""
        self._arriving = {}

    def give_up(self, reason: str) -> None:
        """Note that no gradient will arrive any more, for this reason."""
        for key in {awaited.key: None for awaited in self._awaited.values()} | dict.fromkeys(self.leaves):
            self._states_of(key).mark_undefined("output_gradient", reason)
        self.forget()

    def note_leaf(self, key: Key, gradient: torch.Tensor | None) -> None:
        """Measure the gradient of one of `leaves`."""
        leaf = self.leaves[key]
        awaited = _Awaited(key, tuple(leaf.shape), leaf.device)
        self._states_of(key).merge(self._measure(awaited, gradient))

    def forget(self) -> None:
        """Remove the hooks, and release the outputs."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._awaited.clear()
        self._arriving.clear()
        self._arrived.clear()
        self.leaves.clear()

    def finish_outputs(self, outputs: Iterable[Key], why_missing: str) -> dict[Key, States]:
        """Return the states of these outputs; one that never appeared is undefined for this reason."""
        found: dict[Key, States] = {}
        for key in outputs:
            if key not in self._outputs:
                self._states_of(key).mark_undefined("output_gradient", why_missing)
            found[key] = self._outputs[key]
        return found

    def add_parameters(
        self, modules: Mapping[Key, States], parameters: Mapping[int, ParameterGradient]
    ) -> None:
        """Measure the gradients of the parameters of the modules that have these states."""
        measured = set()
        for key, states in modules.items():
            module = self._modules.get(key[0])
            # The weights of a module belong to the record of its first output.
            if module is not None and key[0] not in measured:
                measured.add(key[0])
                states.add("parameter_gradients", self._collect(trained_parameters(module), parameters))

    def finish_block(self, branches: Branches, parameters: Mapping[int, ParameterGradient]) -> States:
        """Return the states of a block with these branches."""
        states = States(self._statistics, self._budget)
        sides = (self._parameters_of(paths) for paths in (branches.spectral, branches.local))
        subject = BranchGradients(*(self._collect(side, parameters) for side in sides))
        states.add("branch_gradients", subject)
        return states

    def list_failures(self) -> dict[str, str]:
        """Return what could not be measured, by place, with the error."""
        failures = dict(self._failures)
        for (name, _, _), states in self._outputs.items():
            for failure in states.failures.values():
                failures.setdefault(name, failure)
        return {f"{where}/gradients": line for where, line in failures.items()}

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
            # Tensors that outlive the batch get no hook.
            self.leaves[key] = tensor
        else:
            self._appeared += 1
            self._awaited[self._appeared] = _Awaited(key, tuple(tensor.shape), tensor.device)
            hook = partial(self._arrives, self._appeared)
            self._handles.append(tensor.register_hook(hook))  # type: ignore[no-untyped-call]

    def _arrives(self, number: int, gradient: torch.Tensor | None) -> None:
        if gradient is None or number not in self._awaited or not self._takes():
            return
        with torch.no_grad(), torch._C._DisableAutocast():
            self._arriving[number] = self._measure(self._awaited[number], gradient)

    def _measure(self, awaited: _Awaited, gradient: torch.Tensor | None) -> States:
        states = States(self._statistics, self._budget)
        scale = self._scale()
        if scale is None:
            states.mark_undefined("output_gradient", UNKNOWN_SCALE)
            return states
        unscaled = gradient if gradient is None or scale == 1 else gradient / scale
        states.add("output_gradient", OutputGradient(unscaled, awaited.shape, self._size, awaited.device))
        return states

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
