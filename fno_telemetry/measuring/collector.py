"""Measures while a model runs: listens to a trace and updates accumulators."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fno_telemetry.mapping.compared_layouts import KnownOutput
from fno_telemetry.mapping.layouts import Place
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.measuring.accumulators import (
    BlockAccumulator,
    MemoryBudget,
    ModuleAccumulator,
    States,
    TensorAccumulator,
)
from fno_telemetry.measuring.activation_cache import ActivationCache
from fno_telemetry.measuring.batch_layouts import BatchLayouts
from fno_telemetry.measuring.block_collector import BlockCollector
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.measuring.target_collector import TargetCollector
from fno_telemetry.records import place_name
from fno_telemetry.statistics.activation import unmeasurable
from fno_telemetry.statistics.contract import OF_TENSORS
from fno_telemetry.statistics.field_order import FieldOrder
from fno_telemetry.statistics.low_frequencies import LowFrequencies, find_low_frequencies
from fno_telemetry.statistics.subjects import (
    ModeSizes,
    SpectralInput,
    Weights,
)
from fno_telemetry.statistics.values import Values
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Event,
    Failed,
    Overwriting,
    Padded,
    ResidualAdded,
)
from fno_telemetry.tracing.module_calls import Call
from fno_telemetry.tracing.nested_tensors import items, tensors_in
from fno_telemetry.tracing.tensor_shapes import read_shape

Key = tuple[str, int, str | None]

_OPERATORS = ("spectral", "block")  # the roles of modules with an "operator_output"


class Collector:
    """A listener of a trace that measures each output once and keeps states, never tensors."""

    def __init__(
        self,
        model_map: ModelMap,
        statistics: StatisticSet,
        names: frozenset[str],
        budget: MemoryBudget,
        is_light: bool = False,
        is_only_batch: bool = False,
        has_target: bool = False,
        first_size: int | None = None,
    ) -> None:
        self.budget = budget
        self.modules: dict[Key, ModuleAccumulator] = {}
        self.outputs: dict[Key, TensorAccumulator] = {}
        self.inputs: dict[str | None, TensorAccumulator] = {}  # by item
        self.fired: set[str] = set()
        self.own_transforms = 0  # Fourier transforms that the model's own forward called
        self.transforms_apart = False  # whether transforms and their inverses are in different modules
        self._skipped: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.statistics = statistics
        self._map = model_map
        # The legacy formulas use its states.
        self._values = next((one for one in statistics.of("tensor") if isinstance(one, Values)), None)
        if self._values is not None and self._values.name not in statistics.recorded:
            self._values = None
        self._names = names
        self._cache = ActivationCache(is_light, is_only_batch, first_size)
        self._layouts = BatchLayouts(model_map.axes)
        self._blocks = BlockCollector(model_map, statistics, budget, self._cache, self._layouts, has_target)
        self.target = TargetCollector(statistics, budget, self._cache, self._layouts)
        self._order = 0
        # Paths whose weights were measured, which are the same in every call.
        self._weights_measured: set[str] = set()
        of_order = any(isinstance(one, FieldOrder) for one in statistics.of("comparison"))
        self._has_target = has_target and of_order
        self._entered: LowFrequencies | None = None  # what of the first field that went into this batch
        self._was_away = False  # whether a tensor was on another device than the host
        self._sent: set[tuple[str, str, int]] = set()  # the events of this batch: kind, name and number

    @property
    def blocks(self) -> dict[tuple[str, int], BlockAccumulator]:
        """The measured blocks, by name and call."""
        return self._blocks.blocks

    def make_states(self) -> States:
        """Return states without anything yet, of all statistics."""
        return States(self.statistics, self.budget)

    def note_unmeasured(self, name: str, reason: str) -> None:
        """Record that an output or a block was not measured, for this reason."""
        self._skipped.setdefault(name, reason)

    @property
    def unmeasured(self) -> dict[str, str]:
        """The reasons why outputs and blocks were not measured, by name."""
        return {**self._blocks.skipped, **self._skipped}

    def start_batch(self, inputs: object, batch_size: int | None) -> None:
        """Prepare for a batch and measure its tensors."""
        self._layouts.batch_size = batch_size
        self._sent.clear()
        self._entered = None
        self._prepare()
        self._blocks.start_batch()
        for position, (item, tensor) in enumerate(items(inputs)):
            self._was_away |= tensor.device.type != "cpu"
            if (reason := unmeasurable(tensor)) is not None:
                self._skipped.setdefault(place_name("input", 0, item), reason)
                continue
            place = Place("input", "", 0, item if position else None)
            cached = self._cache.cached(tensor, self._layouts.of("", None, tensor, place), place)
            if item not in self.inputs:
                self.inputs[item] = TensorAccumulator(States(self.statistics, self.budget))
            self.inputs[item].add(tensor, cached)
            if self._has_target and self._entered is None and cached.layout.space:
                # Now, because a model may write to its input.
                self._entered = find_low_frequencies(cached.activation)

    def start_again(self) -> None:
        """Prepare for the events of the same batch again, of which those that came already are left out.

        Blocks are measured anew: a forward that was not as planned may have added something else.
        """
        self._blocks.start_again()
        self._prepare()

    def _prepare(self) -> None:
        self._layouts.pads.clear()
        self._cache.clear()

    def compare(self, prediction: torch.Tensor, target: torch.Tensor) -> None:
        """Measure a target of the batch that has just run, and what is compared with it."""
        self._was_away |= prediction.device.type != "cpu"
        outputs = [KnownOutput(output.shape, output.layout) for output in self.outputs.values()]
        self.target.add(outputs, prediction, target, self._entered)

    def end_batch(self) -> None:
        """Release everything that refers to tensors of the batch."""
        self._cache.clear()

    def on(self, event: Event) -> None:
        """Measure the tensors of an event."""
        match event:
            case CallEnded():
                self._call_ended(event.call, event.inputs, event.output)
            case ActivationCalled():
                self.fired.add(event.path)
                if event.path in self._names and self._is_new("function", event.path, event.number):
                    self._measure(
                        (event.path, event.number, None), None, event.parent.path or None, event.output
                    )
            case BranchesAdded():
                self._blocks.add_branches(event, self._magnitude_of)
            case ResidualAdded():
                self._blocks.add_residual(event)
            case Padded():
                # The layouts of padded tensors need the amounts.
                self._layouts.pads.append(event.amounts)
            case Overwriting():
                # Cached states of this memory are no longer valid.
                self._cache.forget(event.target)
            case Failed():
                self.errors.setdefault(event.where or "the model", event.line)

    def _is_new(self, kind: str, name: str, number: int) -> bool:
        """Whether this event comes for the first time in this batch."""
        known = (kind, name, number) in self._sent
        self._sent.add((kind, name, number))
        return not known

    def move_to_host(self) -> None:
        """Move everything that was measured to host memory, in one transfer."""
        if not self._was_away:
            return
        tensors = [*self.inputs.values(), *self.outputs.values(), *self.modules.values()]
        tensors += self.target.accumulators
        blocks = [*self.blocks.values()]
        all_states = [*(tensor.states for tensor in tensors), *(block.states for block in blocks)]
        all_states.append(self.target.compared)
        rows, ratios = [tensor.rows for tensor in tensors], [block.legacy_ratios for block in blocks]
        States.move_to_host(all_states, rows, ratios)
        for tensor, own in zip(tensors, rows, strict=True):
            tensor.rows = own
        for block, of_batches in zip(blocks, ratios, strict=True):
            block.legacy_ratios = of_batches

    def failures(self) -> dict[str, str]:
        """Return all failures by place: a module, or a statistic of a tensor or block."""
        places = [
            *(("input", entered.states) for entered in self.inputs.values()),
            *(("output", output.states) for output in self.outputs.values()),
            *(("target", target.states) for target in self.target.accumulators),
            ("accuracy", self.target.compared),
        ]
        places += [(name, module.states) for (name, _, _), module in self.modules.items()]
        places += [(name, block.states) for (name, _), block in self.blocks.items()]
        failures = dict(self.errors)
        for place, states in places:
            for statistic, failure in states.failures.items():
                failures.setdefault(f"{place}/{statistic}", failure)
        return failures

    def _call_ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        self.fired.add(call.path)
        self._blocks.end_call(call, inputs, output)
        if not self._is_new("call", call.path, call.number):
            return
        if call.parent is not None and call.parent.index == 0 and not call.path:
            self.own_transforms += call.own_transforms
            self.transforms_apart |= call.spectral and not call.own_transforms
            self._model_ended(call, output)
        if call.path not in self._names:
            return
        has_tensors = False
        for item, tensor in items(output):
            has_tensors = True
            accumulator = self._measure((call.path, call.number, item), call.module, _parent_of(call), tensor)
            if accumulator is None:
                continue
            self._module_input(accumulator, call, inputs)
            if accumulator.role == "spectral":
                self._spectral_input(accumulator, call, inputs)
            if call.path not in self._weights_measured and call.module is not None:
                self._weights_measured.add(call.path)
                is_spectral = accumulator.role == "spectral"
                sizes = self._mode_sizes(call, inputs, tensor) if is_spectral else None
                accumulator.states.add("weights", Weights(call.module, is_spectral, sizes))
        if not has_tensors and output is not None:
            self._skipped.setdefault(call.path, f"returned {type(output).__name__}, which holds no tensor")

    def _measure(
        self, key: Key, module: nn.Module | None, parent: str | None, tensor: torch.Tensor
    ) -> ModuleAccumulator | None:
        """Measure one tensor; None if it cannot be measured."""
        name, number, item = key
        self._was_away |= tensor.device.type != "cpu"
        if (reason := unmeasurable(tensor)) is not None:
            self._skipped.setdefault(name if item is None else f"{name}[{item}]", reason)
            return None
        mapped = self._map.get(name)
        accumulator = self.modules.get(key)
        if accumulator is None:
            accumulator = ModuleAccumulator(
                States(self.statistics, self.budget),
                self._values,
                rectifying=isinstance(module, nn.ReLU | nn.GELU),
                kinds=OF_TENSORS if mapped and mapped.role in _OPERATORS else ("tensor",),
                name=name,
                call=number,
                order=self._order,
                parent=parent,
                class_name=mapped.class_name if mapped else type(module).__name__,
                role=mapped.role if mapped else "other",
            )
        layout = self._layouts.of(name, module, tensor, Place("output", *key))
        accumulator.add(tensor, self._cache.cached(tensor, layout, Place("output", *key)))
        if key not in self.modules:
            self.modules[key] = accumulator
            self._order += 1
        return accumulator

    def _module_input(self, accumulator: ModuleAccumulator, call: Call, inputs: Any) -> None:
        known = (tensor for tensor in tensors_in(inputs) if read_shape(tensor) is not None)
        entered = next((tensor for tensor in known if unmeasurable(tensor) is None), None)
        if entered is None or call.input_overwritten:
            reason = "no input is a tensor that can be measured, or it was overwritten in place"
            accumulator.states.mark_undefined("module_input", reason)
            return
        if self.statistics.of("module_input"):
            place = Place("input", call.path, call.number)
            layout = self._layouts.of(call.path, call.module, entered, place)
            accumulator.states.add("module_input", self._cache.activation(entered, layout, place))

    def _spectral_input(self, accumulator: ModuleAccumulator, call: Call, inputs: Any) -> None:
        entered = next(tensors_in(inputs), None)
        if call.input_overwritten or entered is None or unmeasurable(entered) is not None:
            reason = "the input is not a tensor that can be measured, or it was overwritten"
            accumulator.states.mark_undefined("spectral_input", reason)
            return
        if not self.statistics.of("spectral_input"):
            return
        place = Place("input", call.path, call.number)
        layout = self._layouts.of(call.path, call.module, entered, place)
        # The modes are those of the whole field, padding included.
        activation = self._cache.activation(entered, replace(layout, padding=()), place)
        # The modes of this call: a mode that the data did not excite has no energy that could be cut off.
        kept = call.modes
        subject = SpectralInput(activation, None)
        if kept is not None:
            subject = SpectralInput(
                activation, kept.mask, kept.halved, kept.removed, kept.transformed, kept.mixed
            )
        accumulator.states.add("spectral_input", subject)

    def _magnitude_of(self, call: Call) -> torch.Tensor | None:
        accumulator = self.modules.get((call.path, call.number, None))
        return accumulator.batch_magnitude if accumulator else None

    def _mode_sizes(self, call: Call, inputs: Any, output: torch.Tensor) -> ModeSizes | None:
        """Return the sizes by which the mode axes of spectral weights are recognised; None if unknown."""
        entered = next(tensors_in(inputs), None)
        available = call.available
        if entered is None or not available:
            return None
        channels = []
        for tensor, side in ((entered, "input"), (output, "output")):
            layout = self._layouts.of(call.path, call.module, tensor, Place(side, call.path, call.number))
            channels.append(1 if layout.channel is None else tensor.shape[layout.channel])
        return ModeSizes((channels[0], channels[1]), available)

    def _model_ended(self, call: Call, output: Any) -> None:
        for item, tensor in items(output):
            if (reason := unmeasurable(tensor)) is not None:
                self._skipped.setdefault("output" if item is None else f"output[{item}]", reason)
                continue
            key = ("", call.number, item)
            if key not in self.outputs:
                self.outputs[key] = TensorAccumulator(States(self.statistics, self.budget), kinds=OF_TENSORS)
            layout = self._layouts.of("", None, tensor, Place("output", *key))
            self.outputs[key].add(tensor, self._cache.cached(tensor, layout, Place("output", *key)))


def _parent_of(call: Call) -> str | None:
    return (call.parent.path or None) if call.parent is not None else None
