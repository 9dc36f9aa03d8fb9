"""Measures while a model runs: listens to a trace and feeds accumulators. Shared by all sinks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from fno_telemetry.mapping.layouts import Place
from fno_telemetry.mapping.model_map import ModelMap, block_name
from fno_telemetry.measuring.accumulators import (
    BlockAccumulator,
    MemoryBudget,
    ModuleAccumulator,
    TensorAccumulator,
)
from fno_telemetry.measuring.activation_cache import ActivationCache
from fno_telemetry.statistics.activation import Activation, Layout, unmeasurable
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.contract import Statistic, Undefined
from fno_telemetry.statistics.weights import Modes, WeightNorm
from fno_telemetry.tracing.fourier_calls import available_frequencies
from fno_telemetry.tracing.module_calls import Call, distinct_paths
from fno_telemetry.tracing.nested_tensors import items, tensors_in
from torch import nn

Key = tuple[str, int, str | None]


class Collector:
    """A trace's listener that measures each output once and keeps states, never tensors."""

    def __init__(
        self,
        model_map: ModelMap,
        statistics: Sequence[Statistic],
        names: frozenset[str],
        memory_limit: int,
    ) -> None:
        self.budget = MemoryBudget(memory_limit)
        self.modules: dict[Key, ModuleAccumulator] = {}
        self.outputs: dict[Key, TensorAccumulator] = {}
        self.blocks: dict[tuple[str, int], BlockAccumulator] = {}
        self.input = TensorAccumulator(statistics, self.budget, keeps_legacy=False)
        self.fired: set[str] = set()
        self.transforms_itself = False  # whether the whole model's own forward is the spectral layer
        self.skipped: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._map = model_map
        self._statistics = statistics
        self._names = names
        self._measured = ActivationCache()
        self._batch_size: int | None = None
        self._order = 0
        self._pads: list[tuple[int, ...]] = []  # of this batch, in order
        self._weighed: set[str] = set()  # paths whose weights were measured: the same in every call
        self._sums: dict[int, int] = {}  # how many sums a running frame has made, by its call's index
        self._block_of: dict[int, BlockAccumulator] = {}  # by spectral call's index, in this batch
        self._own_blocks: dict[
            int, BlockAccumulator
        ] = {}  # by frame's index: blocks that are a module's forward

    def end_batch(self) -> None:
        """Let go of whatever hangs on the batch's tensors."""
        self._measured.clear()

    def start_batch(self, inputs: object, batch_size: int | None) -> None:
        """Get ready for a batch and measure the first tensor of what goes in."""
        self._batch_size = batch_size
        self._pads.clear()
        self._sums.clear()
        self._block_of.clear()
        self._own_blocks.clear()
        first = next(tensors_in(inputs), None)
        if first is None:
            return
        if (reason := unmeasurable(first)) is not None:
            self.skipped.setdefault("input", reason)
            return
        layout = self._layout("", None, first, Place("input", ""))
        self.input.add(first, self._measured.activation(first, layout))

    def call_ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        """Measure what a module returned."""
        self.fired.add(call.path)
        if (block := self._own_blocks.get(call.index)) is not None:
            self._gain(block, call, inputs, output)
        if call.parent is not None and call.parent.index == 0 and not call.path:
            self.transforms_itself |= call.spectral
            self._model_ended(call, output)
        if call.path not in self._names:
            return
        found = False
        for item, tensor in items(output):
            found = True
            accumulator = self._measure((call.path, call.number, item), call.module, _parent_of(call), tensor)
            if accumulator is None:
                continue
            if accumulator.role == "spectral":
                self._truncation(accumulator, call, inputs)
            if call.path not in self._weighed:
                self._weighed.add(call.path)
                try:
                    self._weigh(accumulator, call, inputs, tensor)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - it may not cost the other outputs
                    self.failed(f"{call.path}/weights", error)
        if not found and output is not None:
            self.skipped.setdefault(call.path, f"returned {type(output).__name__}, which holds no tensor")

    def activation_called(self, parent: Call, name: str, number: int, output: torch.Tensor) -> None:
        """Measure what an activation function returned."""
        path = f"{parent.path}#{name}"
        self.fired.add(path)
        if path in self._names:
            self._measure((path, number, None), None, parent.path or None, output)

    def branches_added(
        self,
        spectral: tuple[Call, ...],
        local: tuple[Call, ...],
        parent: Call,
        s: torch.Tensor,
        t: torch.Tensor,
    ) -> None:
        """Measure the two operands of a sum."""
        block = self._block(parent, spectral, local)
        shape = torch.broadcast_shapes(s.shape, t.shape)  # type: ignore[no-untyped-call]
        s, t = s.expand(shape), t.expand(shape)
        if (reason := unmeasurable(s) or unmeasurable(t)) is not None:
            self.skipped.setdefault(block.name, reason)
            return
        first = spectral[0]
        layout = self._layout(first.path, first.module, s, Place("sum", block.name, block.call))
        block.add("branches", Branches().measure(Activation(s, layout), Activation(t, layout)))
        magnitudes = []
        for call in (*spectral[:1], *local[:1]):
            accumulator = self.modules.get((call.path, call.number, None))
            magnitudes.append(accumulator.batch_magnitude if accumulator else None)
        above, below = (*magnitudes, None)[:2]
        block.legacy_ratios.append(above / below if above is not None and below is not None else None)

    def residual_added(
        self, spectral: tuple[Call, ...], parent: Call, before: torch.Tensor, after: torch.Tensor
    ) -> None:
        """Measure how far a block moved its input."""
        block = self._block_of.get(spectral[-1].index) or self._block(parent, spectral, ())
        if (reason := unmeasurable(before) or unmeasurable(after)) is not None:
            self.skipped.setdefault(block.name, reason)
            return
        layout = self._layout(block.name, None, after, Place("sum", block.name, block.call))
        if before.shape != after.shape:
            before = before.expand_as(after)
        sides = (self._measured.activation(tensor, layout) for tensor in (before, after))
        block.add("updates", Updates().measure(*sides))

    def padded(self, amounts: tuple[int, ...]) -> None:
        """Remember it for the tensors that are padded by it."""
        self._pads.append(amounts)

    def overwriting(self, target: torch.Tensor) -> None:
        """What was measured in this memory holds no longer."""
        self._measured.forget(target)

    def failed(self, where: str, error: BaseException) -> None:
        """Remember the first failure at each place."""
        self.errors.setdefault(where or "the model", f"{type(error).__name__}: {error}")

    def failures(self) -> dict[str, str]:
        """Return everything that went wrong, by where: a module, or a statistic of a tensor."""
        places = [("input", self.input), *(("output", output) for output in self.outputs.values())]
        places += [(name, module) for (name, _, _), module in self.modules.items()]
        found = dict(self.errors)
        for place, accumulator in places:
            for statistic, failure in accumulator.failures.items():
                found.setdefault(f"{place}/{statistic}", failure)
        return found

    def _measure(
        self, key: Key, module: nn.Module | None, parent: str | None, tensor: torch.Tensor
    ) -> ModuleAccumulator | None:
        """Measure one tensor; None when it cannot be."""
        name, number, item = key
        if (reason := unmeasurable(tensor)) is not None:
            self.skipped.setdefault(name if item is None else f"{name}[{item}]", reason)
            return None
        mapped = self._map.get(name)
        accumulator = self.modules.get(key)
        if accumulator is None:
            accumulator = ModuleAccumulator(
                self._statistics,
                self.budget,
                rectifying=isinstance(module, nn.ReLU | nn.GELU),
                name=name,
                call=number,
                order=self._order,
                parent=parent,
                class_name=mapped.class_name if mapped else type(module).__name__,
                role=mapped.role if mapped else "other",
            )
        layout = self._layout(name, module, tensor, Place("output", *key))
        accumulator.add(tensor, self._measured.activation(tensor, layout))
        if key not in self.modules:
            self.modules[key] = accumulator
            self._order += 1
        return accumulator

    def _truncation(self, accumulator: ModuleAccumulator, call: Call, inputs: Any) -> None:
        entered = next(tensors_in(inputs), None)
        if call.input_overwritten or entered is None or unmeasurable(entered) is not None:
            accumulator.truncation = Undefined("what went in is no tensor that can be measured, or is gone")
            return
        layout = self._layout(call.path, call.module, entered, Place("input", call.path, call.number))
        # The modes are those of the padded field.
        layout = replace(layout, padding=())
        # The modes of this very call: a mode that the data did not excite has no energy to cut off either.
        accumulator.add_input(self._measured.activation(entered, layout), call.modes)

    def _layout(self, path: str, module: nn.Module | None, tensor: torch.Tensor, place: Place) -> Layout:
        return self._map.axes.layout(path, module, tuple(tensor.shape), self._batch_size, place, self._pads)

    def _weigh(self, accumulator: ModuleAccumulator, call: Call, inputs: Any, output: torch.Tensor) -> None:
        """Measure the weights of a module, once for all of its calls."""
        if call.module is None:
            return
        accumulator.weights = WeightNorm().measure(call.module)
        if accumulator.role != "spectral":
            return
        entered = next(tensors_in(inputs), None)
        channels = []
        for tensor, side in ((entered, "input"), (output, "output")):
            if tensor is not None:
                layout = self._layout(call.path, call.module, tensor, Place(side, call.path, call.number))
                channels.append(1 if layout.channel is None else tensor.shape[layout.channel])
        available = available_frequencies(call.forward_transforms)
        if len(channels) < 2 or not available:
            accumulator.modes = Undefined("the shapes of what went in, or of its transform, are not known")
            return
        accumulator.modes = Modes().measure(call.module, (channels[0], channels[1]), available)

    def _model_ended(self, call: Call, output: Any) -> None:
        for item, tensor in items(output):
            if (reason := unmeasurable(tensor)) is not None:
                self.skipped.setdefault("output" if item is None else f"output[{item}]", reason)
                continue
            key = ("", call.number, item)
            if key not in self.outputs:
                self.outputs[key] = TensorAccumulator(self._statistics, self.budget, keeps_legacy=False)
            layout = self._layout("", None, tensor, Place("output", *key))
            self.outputs[key].add(tensor, self._measured.activation(tensor, layout))

    def _block(self, parent: Call, spectral: tuple[Call, ...], local: tuple[Call, ...]) -> BlockAccumulator:
        number = self._sums.get(parent.index, 0)
        self._sums[parent.index] = number + 1
        name = block_name(parent.path, self._map.numbered, number)
        block = self.blocks.get((name, parent.number))
        if block is None:
            block = self.blocks[name, parent.number] = BlockAccumulator(
                name,
                parent.number,
                distinct_paths(spectral),
                distinct_paths(local),
            )
        self._block_of[spectral[-1].index] = block
        if name == parent.path:
            self._own_blocks[parent.index] = block
        return block

    def _gain(self, block: BlockAccumulator, call: Call, inputs: Any, output: Any) -> None:
        before, after = next(tensors_in(inputs), None), next(tensors_in(output), None)
        if before is None or after is None or unmeasurable(before) or unmeasurable(after):
            return
        if call.input_overwritten:
            block.add("gains", Undefined("the block works in place: its input is gone"))
            return
        sides = []
        for kind, tensor in (("input", before), ("output", after)):
            layout = self._layout(block.name, None, tensor, Place(kind, call.path, call.number))
            sides.append(self._measured.activation(tensor, layout))
        block.add("gains", Gains().measure(*sides))


def _parent_of(call: Call) -> str | None:
    return (call.parent.path or None) if call.parent is not None else None
