"""Running states of tensors, modules and blocks: updated batch by batch, then turned into records."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from fno_telemetry.measuring.activation_cache import CachedActivation
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.records import BlockRecord, FrozenMapping, ModuleRecord, Role, TensorRecord, Value
from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.activation import Layout, dtype_name
from fno_telemetry.statistics.contract import (
    OF_BLOCKS,
    OF_MODULES,
    OF_TENSORS,
    Known,
    Of,
    Statistic,
    Summary,
    Undefined,
    merge_states,
    summarize_state,
)
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.values import Values

_NEVER_SEEN: Mapping[Of, str] = {
    "branch_sum": "no sum of a spectral and a local branch was found",
    "residual_update": "no sum with the block's own input was found",
    "block": "the input and the output of this block are not known",
    "block_spectra": "the spectra of this block were not measured",
}
"""The reasons for undefined numbers of a block that never had anything to measure."""


@dataclass
class MemoryBudget:
    """The memory limit in bytes for states that grow with a tensor, over all modules together."""

    limit: int
    used: int = 0

    def admit(self, state: Any) -> Any:
        """Return the state, or Undefined if its memory would exceed the limit."""
        needed = getattr(state, "memory_bytes", 0)
        if self.used + needed > self.limit:
            mebibytes = -(-self.limit // 2**20)
            what = getattr(state, "memory_of", "mean field")
            return Undefined(f"its {what} would exceed the memory limit of {mebibytes} MiB")
        self.used += needed
        return state


class States:
    """The merged states of several statistics for one subject; a statistic that raises becomes undefined."""

    def __init__(self, statistics: StatisticSet, budget: MemoryBudget) -> None:
        self._statistics = statistics
        self._budget = budget
        self._states: dict[str, Any] = {}  # by the statistic's name
        self.failures: dict[str, str] = {}

    def add(self, kind: Of, subject: Any) -> None:
        """Measure a subject of this kind and merge it."""
        for statistic in self._statistics.of(kind):
            self._add(statistic, partial(statistic.measure, subject))

    def add_cached(self, kind: Of, cached: CachedActivation) -> None:
        """Do the same with an activation; states already in the cache are not measured again."""
        for statistic in self._statistics.of(kind):
            self._add(statistic, partial(cached.state_of, statistic))

    def by_statistic(self) -> Iterator[tuple[Statistic, Any]]:
        """Yield each statistic that has a state of this subject, with the state."""
        for statistic in self._statistics.statistics:
            if (state := self._states.get(statistic.name)) is not None:
                yield statistic, state

    def find(self, name: str) -> Any:
        """Return the state of a statistic; None if it has none."""
        return self._states.get(name)

    def replace(self, states: Mapping[str, Any]) -> None:
        """Take other states instead of all own ones, by the name of the statistic."""
        self._states = dict(states)

    def copy(self) -> "States":
        """Return a copy, which later measurements do not change."""
        copied = States(self._statistics, self._budget)
        copied._states, copied.failures = dict(self._states), dict(self.failures)
        return copied

    def merge(self, other: "States") -> None:
        """Merge the states of another batch of the same subject."""
        for name, state in other._states.items():
            before = self._states.get(name)
            self._states[name] = state if before is None else merge_states(before, state)
        self.failures |= other.failures

    def take_over(self, other: "States") -> None:
        """Add the states of other statistics for the same subject."""
        self._states |= other._states
        self.failures |= other.failures

    def mark_undefined(self, kind: Of, reason: str) -> None:
        """Record that subjects of this kind cannot be measured, for this reason."""
        for statistic in self._statistics.of(kind):
            self._merge(statistic, Undefined(reason))

    def summarize(self, kinds: Sequence[Of], known: Known, never_seen: Mapping[Of, str]) -> Summary:
        """Return the numbers of all requested statistics of these kinds.

        A statistic that measured nothing is left out, or undefined if `never_seen` has a reason.
        """
        numbers = dict(known.numbers)
        summaries = []
        for kind in kinds:
            for statistic in self._statistics.of(kind):
                state = self._states.get(statistic.name)
                if state is None and kind in never_seen:
                    state = Undefined(never_seen[kind])
                if state is None:
                    continue
                needed = {
                    key: numbers[key]
                    for key in self._statistics.needed_keys[statistic.name]
                    if key in numbers
                }
                summary = self._summarize(statistic, state, dataclasses.replace(known, numbers=needed))
                numbers |= summary.stats
                if statistic.name in self._statistics.recorded:
                    summaries.append(summary)
        return join_summaries(summaries)

    @staticmethod
    def move_to_host(all_states: "Sequence[States]", *others: list[Any]) -> None:
        """Move the tensors of these states and of the other lists to host memory.

        The states and the lists are changed in place. All tensors of one device move in a single transfer.
        """
        moved, *moved_others = on_host([[states._states for states in all_states], *others])
        for states, own in zip(all_states, moved, strict=True):
            states._states = own
        for other, own in zip(others, moved_others, strict=True):
            other[:] = own

    def _add(self, statistic: Statistic, measure: Callable[[], Any]) -> None:
        if isinstance(self._states.get(statistic.name), Undefined):
            return
        try:
            state = measure()
            if state is not None:
                self._merge(statistic, state)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it must not affect other statistics
            self._states[statistic.name] = self._failed(statistic, "measuring", error)

    def _merge(self, statistic: Statistic, state: Any) -> None:
        before = self._states.get(statistic.name)
        after = self._budget.admit(state) if before is None else merge_states(before, state)
        self._states[statistic.name] = after

    def _summarize(self, statistic: Statistic, state: Any, known: Known) -> Summary:
        try:
            summary = summarize_state(statistic, state, known)
            declared = self._statistics.keys[statistic.name]
            if undeclared := [name for name in summary.stats if name not in declared]:
                raise ValueError(f"{undeclared[0]!r} is not one of its quantities")
            return dataclasses.replace(summary, stats=select_finite(summary.stats))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nor must its summary
            return summarize_state(statistic, self._failed(statistic, "summarizing", error))

    def _failed(self, statistic: Statistic, doing: str, error: BaseException) -> Undefined:
        self.failures.setdefault(statistic.name, f"{type(error).__name__}: {error}")
        return Undefined(f"{doing} raised {type(error).__name__}")


@dataclass
class TensorAccumulator:
    """Merges the states of all statistics of one tensor over the batches.

    The legacy formulas are computed if `values` is given, the statistic whose states they use. `kinds` are
    the kinds of subjects that the tensor is.
    """

    states: States
    values: Values | None = None
    rectifying: bool = False
    kinds: tuple[Of, ...] = ("tensor",)
    shape: tuple[int, ...] = ()
    dtype: str = ""
    layout: Layout = field(default_factory=lambda: Layout(None, None))
    is_complex: bool = False
    rows: legacy.LegacyState | None = None  # one per batch
    batch_magnitude: torch.Tensor | None = None  # mean |x| of the last batch
    process_extremes: tuple[tuple[Value, Value], ...] | None = None  # of each of several processes

    def add(self, tensor: torch.Tensor, cached: CachedActivation) -> None:
        """Measure one batch and merge it; a statistic that raises becomes undefined for that reason."""
        self.batch_magnitude = None
        self._note_shape(tuple(tensor.shape), cached.layout)
        self.dtype = self.dtype or dtype_name(tensor.dtype)
        self.is_complex = self.is_complex or cached.is_complex
        for kind in self.kinds:
            self.states.add_cached(kind, cached)
        if self.values is not None and self.values.name not in self.states.failures:
            state = cached.state_of(self.values)
            row = legacy.measure(tensor, cached.activation, state, self.rectifying)
            self.rows = row if self.rows is None else self.rows.merge(row)
            # As in plain arithmetic, the mean of |x| is NaN if any element is not finite.
            whole = state.finite == state.count
            self.batch_magnitude = torch.where(whole, state.absolute_sum / state.finite, torch.nan)

    def record(self, item: str | None, known: Known) -> TensorRecord:
        """Return the merged record."""
        summary = self.states.summarize(OF_TENSORS, known, {})
        return TensorRecord(**self._fields(item, summary), channel_rms=summary.channel_rms)

    def _fields(self, item: str | None, summary: Summary) -> dict[str, Any]:
        return {
            "item": item,
            "shape": self.shape,
            "dtype": self.dtype,
            "spatial_axes": self.layout.space,
            "values_of": "|z|" if self.is_complex else "x",
            "stats": FrozenMapping(summary.stats),
            "reasons": FrozenMapping(summary.reasons),
            "histogram": summary.histogram,
            "log_histogram": summary.log_histogram,
            "spectrum": summary.spectrum,
            "sketch": summary.sketch,
            "process_extremes": self.process_extremes,
        }

    def _note_shape(self, shape: tuple[int, ...], layout: Layout) -> None:
        if not self.dtype:
            self.shape, self.layout = shape, layout
        elif layout.sample == 0 and self.layout.sample == 0 and len(shape) == len(self.shape):
            self.shape = (self.shape[0] + shape[0], *self.shape[1:])


@dataclass(kw_only=True)
class ModuleAccumulator(TensorAccumulator):
    """The states of one output of one module call, of its weights and of its spectral input."""

    name: str
    call: int
    order: int
    parent: str | None
    class_name: str
    role: Role

    def module_record(self, item: str | None, known: Known, gradients: States | None) -> ModuleRecord:
        """Return the merged record of this output; `gradients` are the states that a loss adds."""
        summary = _summarize_both(self.states, gradients, OF_MODULES, known, {})
        return ModuleRecord(
            **self._fields(item, summary),
            name=self.name,
            call=self.call,
            order=self.order,
            parent=self.parent,
            class_name=self.class_name,
            role=self.role,
            mode_energy=summary.mode_energy,
        )


@dataclass
class BlockAccumulator:
    """The states of one block, where branches are added."""

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]
    order: int  # among the sums of its batch
    states: States
    legacy_ratios: list[torch.Tensor | None] = field(default_factory=list)

    def record(self, known: Known, gradients: States | None) -> BlockRecord:
        """Return the merged record of this block; `gradients` are the states that a loss adds."""
        # Without a target, nobody asks for spectra.
        kinds = tuple(kind for kind in OF_BLOCKS if kind != "block_spectra" or known.bands is not None)
        summary = _summarize_both(self.states, gradients, kinds, known, _NEVER_SEEN)
        return BlockRecord(
            name=self.name,
            call=self.call,
            spectral=self.spectral,
            local=self.local,
            stats=FrozenMapping(summary.stats),
            reasons=FrozenMapping(summary.reasons),
        )

    def legacy_column(self) -> tuple[float | None, ...]:
        """Return the branch ratio by the legacy formula, one value per batch."""
        values = [None if ratio is None else float(ratio) for ratio in self.legacy_ratios]
        return tuple(v if v is not None and abs(v) < float("inf") else None for v in values)


def _summarize_both(
    states: States, gradients: States | None, kinds: Sequence[Of], known: Known, never_seen: Mapping[Of, str]
) -> Summary:
    own = states.summarize(kinds, known, never_seen)
    if gradients is None:
        return own
    more = gradients.summarize(kinds, dataclasses.replace(known, numbers={**known.numbers, **own.stats}), {})
    return join_summaries([own, more])


def join_summaries(summaries: Sequence[Summary]) -> Summary:
    """Return one summary with all numbers, and a reason for each that is None."""
    stats: dict[str, Value] = {}
    reasons: dict[str, str] = {}
    for summary in summaries:
        stats |= select_finite(summary.stats)
        reasons |= summary.reasons
    for key in stats:
        if stats[key] is None:
            reasons.setdefault(key, "the result is not finite")

    def find_part(name: str) -> Any:
        return next((part for s in summaries if (part := getattr(s, name)) is not None), None)

    parts = [each.name for each in dataclasses.fields(Summary) if each.name not in ("stats", "reasons")]
    return Summary(
        stats,
        {key: reason for key, reason in reasons.items() if stats.get(key) is None},
        **{name: find_part(name) for name in parts},
    )


def select_finite(stats: Mapping[str, Any]) -> dict[str, Value]:
    """Return plain numbers, None for non-finite ones; raise ValueError or TypeError for other objects."""
    finite: dict[str, Value] = {}
    for key, value in stats.items():
        if value is not None and type(value) is not int:
            value = float(value)
        finite[key] = value if value is None or math.isfinite(value) else None
    return finite
