"""Measures the blocks of a forward: where branches are added, and what a block adds to its input."""

from collections.abc import Callable
from typing import Any

import torch

from fno_telemetry.mapping.layouts import Place
from fno_telemetry.mapping.model_map import ModelMap, block_name
from fno_telemetry.measuring.accumulators import BlockAccumulator, MemoryBudget, States
from fno_telemetry.measuring.activation_cache import ActivationCache
from fno_telemetry.measuring.batch_layouts import BatchLayouts
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.statistics.activation import unmeasurable
from fno_telemetry.statistics.contract import Of
from fno_telemetry.statistics.subjects import BlockCall, BranchSum, ResidualUpdate
from fno_telemetry.tracing.events import BranchesAdded, ResidualAdded
from fno_telemetry.tracing.module_calls import Call, distinct_paths
from fno_telemetry.tracing.nested_tensors import tensors_in


class BlockCollector:
    """Measures each block of a batch once; `skipped` has a reason for each that cannot be measured."""

    def __init__(
        self,
        model_map: ModelMap,
        statistics: StatisticSet,
        budget: MemoryBudget,
        cache: ActivationCache,
        layouts: BatchLayouts,
        has_target: bool = False,
    ) -> None:
        self.blocks: dict[tuple[str, int], BlockAccumulator] = {}
        self.skipped: dict[str, str] = {}
        self._map = model_map
        self._statistics = statistics
        self._budget = budget
        self._cache = cache
        self._layouts = layouts
        self._kinds: tuple[Of, ...] = ("block", "block_spectra") if has_target else ("block",)
        self._sums: dict[int, int] = {}  # by index of a running parent call: its number of sums so far
        self._block_of: dict[int, BlockAccumulator] = {}  # by spectral call's index, in this batch
        # The block that a call consists of, by its index.
        self._own_blocks: dict[int, BlockAccumulator] = {}
        self._measured: set[tuple[str, str, int]] = set()  # of this batch: kind, name and number
        self._before: dict[tuple[str, int], tuple[States, list[torch.Tensor | None]]] = {}

    def start_batch(self) -> None:
        """Prepare for a batch."""
        self._before = {
            key: (block.states.copy(), list(block.legacy_ratios)) for key, block in self.blocks.items()
        }
        self._prepare()

    def start_again(self) -> None:
        """Forget what was measured of this batch: another forward of it may add something else."""
        for key in [key for key in self.blocks if key not in self._before]:
            del self.blocks[key]
        for key, (states, ratios) in self._before.items():
            self.blocks[key].states, self.blocks[key].legacy_ratios = states, list(ratios)
        self._prepare()

    def _prepare(self) -> None:
        self._sums.clear()
        self._block_of.clear()
        self._own_blocks.clear()
        self._measured.clear()

    def add_branches(self, event: BranchesAdded, magnitude_of: Callable[[Call], torch.Tensor | None]) -> None:
        """Measure both operands of a branch sum; `magnitude_of` returns mean |x| of what a call returned."""
        block = self._block(event.parent, event.spectral, event.local, event.order)
        if not self._is_new("branches", block.name, block.call):
            return
        shape = torch.broadcast_shapes(event.s.shape, event.t.shape)  # type: ignore[no-untyped-call]
        # The same objects where possible: what was measured of them as outputs is not measured again.
        s, t = (one if one.shape == shape else one.expand(shape) for one in (event.s, event.t))
        if (reason := unmeasurable(s) or unmeasurable(t)) is not None:
            self.skipped.setdefault(block.name, reason)
            return
        if self._statistics.of("branch_sum"):
            first = event.spectral[0]
            place = Place("sum", block.name, block.call)
            layout = self._layouts.of(first.path, first.module, s, place)
            sides = (self._cache.activation(operand, layout, place) for operand in (s, t))
            block.states.add("branch_sum", BranchSum(*sides))
        if block.name != event.parent.path and not self._map.is_residual(block.name, block.call):
            self._add_sides(block, None if event.spans_blocks else event.before, event.result)
        magnitudes = map(magnitude_of, (*event.spectral[:1], *event.local[:1]))
        above, below = (*magnitudes, None)[:2]
        block.legacy_ratios.append(above / below if above is not None and below is not None else None)

    def add_residual(self, event: ResidualAdded) -> None:
        """Measure the input of a block and the residual sum."""
        before, after = event.before, event.after
        block = self._block_of.get(event.spectral[-1].index) or self._block(
            event.parent, event.spectral, (), event.order
        )
        if not self._is_new("residual", block.name, block.call):
            return
        if (reason := unmeasurable(before) or unmeasurable(after)) is not None:
            self.skipped.setdefault(block.name, reason)
            return
        if before.shape != after.shape:
            before = before.expand_as(after)
        is_module = any(own is block for own in self._own_blocks.values())
        self._add_sides(block, before, after, is_module)

    def end_call(self, call: Call, inputs: Any, output: Any) -> None:
        """Measure a call that is a block."""
        block = self._own_blocks.get(call.index)
        if block is None or not self._is_new("block", call.path, call.number):
            return
        before, after = next(tensors_in(inputs), None), next(tensors_in(output), None)
        if before is None or after is None or unmeasurable(before) or unmeasurable(after):
            return
        if call.input_overwritten:
            self._mark_undefined(block, "the block overwrites its input in place")
            return
        if not any(map(self._statistics.of, self._kinds)):
            return
        sides = []
        for kind, tensor in (("input", before), ("output", after)):
            layout = self._layouts.of(block.name, None, tensor, Place(kind, call.path, call.number))
            sides.append(self._cache.activation(tensor, layout))
        self._add_block(block, BlockCall(*sides))

    def _add_block(self, block: BlockAccumulator, call: BlockCall) -> None:
        for kind in self._kinds:
            block.states.add(kind, call)

    def _mark_undefined(self, block: BlockAccumulator, reason: str) -> None:
        for kind in self._kinds:
            block.states.mark_undefined(kind, reason)

    def _is_new(self, kind: str, name: str, number: int) -> bool:
        """Whether this is to be measured for the first time in this batch."""
        known = (kind, name, number) in self._measured
        self._measured.add((kind, name, number))
        return not known

    def _add_sides(
        self,
        block: BlockAccumulator,
        before: torch.Tensor | None,
        after: torch.Tensor | None,
        is_module: bool = False,
    ) -> None:
        """Measure a block's input and the sum; a module that is a block is measured when it returns."""
        if before is None or after is None or unmeasurable(before) or unmeasurable(after):
            reason = "the block's input was overwritten, or an earlier block's input is added as well"
            block.states.mark_undefined("residual_update", reason)
            self._mark_undefined(block, reason)
            return
        if not any(map(self._statistics.of, ("residual_update", *self._kinds))):
            return
        layout = self._layouts.of(block.name, None, after, Place("sum", block.name, block.call))
        if before.shape == after.shape:
            sides = [self._cache.activation(tensor, layout) for tensor in (before, after)]
            block.states.add("residual_update", ResidualUpdate(*sides))
        else:
            path = block.spectral[-1]
            own = self._layouts.of(path, None, before, Place("input", path, block.call))
            sides = [self._cache.activation(before, own), self._cache.activation(after, layout)]
            reason = "the sum has another shape than the block's input"
            block.states.mark_undefined("residual_update", reason)
        if not is_module:
            self._add_block(block, BlockCall(*sides))

    def _block(
        self, parent: Call, spectral: tuple[Call, ...], local: tuple[Call, ...], order: int
    ) -> BlockAccumulator:
        reported = self._sums.get(parent.index, 0)
        self._sums[parent.index] = reported + 1
        numbers = self._map.order_of_sums.get((parent.path, parent.number), ())
        number = numbers[reported] if reported < len(numbers) else reported
        name = block_name(parent.path, self._map.numbered, number)
        block = self.blocks.get((name, parent.number))
        if block is None:
            block = self.blocks[name, parent.number] = BlockAccumulator(
                name,
                parent.number,
                distinct_paths(spectral),
                distinct_paths(local),
                order,
                States(self._statistics, self._budget),
            )
        self._block_of[spectral[-1].index] = block
        if name == parent.path:
            self._own_blocks[parent.index] = block
        return block
