"""Running states of one tensor, one block: fed batch by batch, turned into records at the end."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fno_telemetry.records import BlockRecord, FrozenMapping, ModuleRecord, Role, TensorRecord, Value
from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.activation import Activation, Layout, dtype_name
from fno_telemetry.statistics.branches import Branches, Gains, Updates
from fno_telemetry.statistics.contract import (
    Statistic,
    Summarizer,
    Summary,
    Undefined,
    merge_states,
    on_host,
    summarize_state,
)
from fno_telemetry.statistics.truncation import Truncation
from fno_telemetry.statistics.values import ValueState
from fno_telemetry.statistics.weights import Modes, ModesState, NormState, WeightNorm, mode_energy

RELATIVE = "relative_sample_variation"


@dataclass
class MemoryBudget:
    """How much the states that grow with a tensor may keep, over all modules together."""

    limit: int
    used: int = 0

    def admit(self, state: Any) -> Any:
        """Return the state, or Undefined when what it keeps would go beyond the limit."""
        needed = getattr(state, "memory_bytes", 0)
        if self.used + needed > self.limit:
            mebibytes = -(-self.limit // 2**20)
            return Undefined(f"its mean field would exceed the memory limit of {mebibytes} MiB")
        self.used += needed
        return state


@dataclass
class TensorAccumulator:
    """Merges what the statistics measure of one tensor over the batches."""

    statistics: Sequence[Statistic]
    budget: MemoryBudget
    rectifying: bool = False
    keeps_legacy: bool = True
    shape: tuple[int, ...] = ()
    dtype: str = ""
    layout: Layout = field(default_factory=lambda: Layout(None, None))
    is_complex: bool = False
    states: dict[str, Any] = field(default_factory=dict)
    rows: legacy.LegacyState | None = None  # of the earlier formulas, one per batch
    failures: dict[str, str] = field(default_factory=dict)
    batch_magnitude: torch.Tensor | None = None  # mean |x| of the last batch

    def add(self, tensor: torch.Tensor, activation: Activation) -> None:
        """Measure one batch and merge it; a statistic that raises becomes undefined with that reason."""
        self.batch_magnitude = None
        self._note_shape(tuple(tensor.shape), activation.layout)
        self.dtype = self.dtype or dtype_name(tensor.dtype)
        self.is_complex = self.is_complex or activation.complex
        for statistic in self.statistics:
            self._merge(statistic, activation)
            state = activation.kept.get("values state")
            if isinstance(state, ValueState) and statistic.name == "values" and self.keeps_legacy:
                row = legacy.measure(tensor, activation, state, self.rectifying)
                self.rows = row if self.rows is None else self.rows.merge(row)
                # The mean of |x| is as undefined as it is to plain arithmetic when an element is not finite.
                whole = state.finite == state.count
                self.batch_magnitude = torch.where(whole, state.absolute_sum / state.finite, torch.nan)

    def record(self, item: str | None, input_variation: Value = None) -> TensorRecord:
        """Return the merged record; `input_variation` is the sample variation of the model's input."""
        summary = _joined(self._summaries())
        stats, reasons = dict(summary.stats), dict(summary.reasons)
        if "sample_variation" in stats:
            own = stats["sample_variation"]
            stats[RELATIVE] = own / input_variation if own is not None and input_variation else None
            if stats[RELATIVE] is None:
                reasons[RELATIVE] = reasons.get("sample_variation", "the input's is zero or unknown")
        return TensorRecord(
            item=item,
            shape=self.shape,
            dtype=self.dtype,
            spatial_axes=self.layout.space,
            values_of="|z|" if self.is_complex else "x",
            stats=FrozenMapping(stats),
            reasons=FrozenMapping(reasons),
            histogram=summary.histogram,
            log_histogram=summary.log_histogram,
            spectrum=summary.spectrum,
            sketch=summary.sketch,
        )

    def _merge(self, statistic: Statistic, activation: Activation) -> None:
        before = self.states.get(statistic.name)
        if isinstance(before, Undefined):
            return
        try:
            # The activation may be of a tensor that another module returned before.
            known = f"{statistic.name} state"
            if known not in activation.kept:
                activation.kept[known] = statistic.measure(activation)
            state = activation.kept[known]
            after = self.budget.admit(state) if before is None else merge_states(before, state)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it may not cost the others
            after = self._failed(statistic, "measuring", error)
        self.states[statistic.name] = after

    def _note_shape(self, shape: tuple[int, ...], layout: Layout) -> None:
        if not self.dtype:
            self.shape, self.layout = shape, layout
        elif layout.sample == 0 and self.layout.sample == 0 and len(shape) == len(self.shape):
            self.shape = (self.shape[0] + shape[0], *self.shape[1:])

    def _summaries(self) -> list[Summary]:
        summaries: list[Summary] = []
        known: dict[str, Value] = {}
        for statistic in self.statistics:
            try:
                summary = summarize_state(statistic, on_host(self.states[statistic.name]), known)
                stats = _finite(summary.stats)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - nor may its numbers
                summary = summarize_state(statistic, self._failed(statistic, "summarizing", error), known)
                stats = dict(summary.stats)
            known |= stats
            summaries.append(dataclasses.replace(summary, stats=stats))
        return summaries

    def _failed(self, statistic: Statistic, doing: str, error: BaseException) -> Undefined:
        self.failures.setdefault(statistic.name, f"{type(error).__name__}: {error}")
        return Undefined(f"{doing} raised {type(error).__name__}")


@dataclass
class ModuleAccumulator(TensorAccumulator):
    """The states of one output of one module call, of the module's weights, and of what it cuts off."""

    name: str = ""
    call: int = 0
    order: int = 0
    parent: str | None = None
    class_name: str = ""
    role: Role = "other"
    truncation: Any = None
    weights: NormState | None = None
    modes: Any = None
    gradients: tuple[Summary, ...] = ()

    def add_input(self, activation: Activation, modes: torch.Tensor | None) -> None:
        """Measure what entered a spectral convolution."""
        if not isinstance(self.truncation, Undefined):
            state = Truncation().measure(activation, modes)
            self.truncation = state if self.truncation is None else merge_states(self.truncation, state)

    def module_record(self, item: str | None, input_variation: Value) -> ModuleRecord:
        """Return the merged record of this output."""
        record = self.record(item, input_variation)
        stats, reasons = dict(record.stats), dict(record.reasons)
        kinds: tuple[tuple[Summarizer, Any], ...] = (
            (Truncation(), self.truncation),
            (WeightNorm(), self.weights),
            (Modes(), self.modes),
        )
        for statistic, state in kinds:
            if state is not None:
                summary = summarize_state(statistic, on_host(state), stats)
                stats |= _finite(summary.stats)
                reasons |= summary.reasons
        for summary in self.gradients:
            stats |= _finite(summary.stats)
            reasons |= summary.reasons
        spread = mode_energy(on_host(self.modes)) if isinstance(self.modes, ModesState) else None
        fields = {name: getattr(record, name) for name in TensorRecord.__dataclass_fields__}
        fields |= {"stats": FrozenMapping(stats), "reasons": FrozenMapping(reasons)}
        return ModuleRecord(
            **fields,
            name=self.name,
            call=self.call,
            order=self.order,
            parent=self.parent,
            class_name=self.class_name,
            role=self.role,
            mode_energy=spread,
        )


@dataclass
class BlockAccumulator:
    """The states of one place where branches meet."""

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]
    branches: Any = None
    updates: Any = None
    gains: Any = None
    gradients: tuple[Summary, ...] = ()
    legacy_ratios: list[torch.Tensor | None] = field(default_factory=list)

    def add(self, kind: str, state: Any) -> None:
        """Merge a state into `branches`, `updates` or `gains`."""
        before = getattr(self, kind)
        setattr(self, kind, state if before is None else merge_states(before, state))

    def record(self) -> BlockRecord:
        """Return the merged record of this block."""
        missing = {
            "branches": "no sum of a spectral and a local branch was seen",
            "updates": "no sum with the block's own input was seen",
            "gains": "no module's forward is this block alone",
        }
        summaries = []
        kinds: dict[str, Summarizer] = {"branches": Branches(), "updates": Updates(), "gains": Gains()}
        for kind, statistic in kinds.items():
            state = getattr(self, kind)
            state = Undefined(missing[kind]) if state is None else on_host(state)
            summaries.append(summarize_state(statistic, state, {}))
        summary = _joined([*summaries, *self.gradients])
        return BlockRecord(
            name=self.name,
            call=self.call,
            spectral=self.spectral,
            local=self.local,
            stats=FrozenMapping(summary.stats),
            reasons=FrozenMapping(summary.reasons),
        )

    def legacy_column(self) -> tuple[float | None, ...]:
        """Return the earlier script's branch ratio, one value per batch."""
        values = [None if ratio is None else float(ratio) for ratio in self.legacy_ratios]
        return tuple(v if v is not None and abs(v) < float("inf") else None for v in values)


def _joined(summaries: Sequence[Summary]) -> Summary:
    stats: dict[str, Value] = {}
    reasons: dict[str, str] = {}
    for summary in summaries:
        stats |= _finite(summary.stats)
        reasons |= summary.reasons
    for key in stats:
        if stats[key] is None:
            reasons.setdefault(key, "not a finite number")

    def only(name: str) -> Any:
        return next((part for s in summaries if (part := getattr(s, name)) is not None), None)

    return Summary(
        stats,
        {key: reason for key, reason in reasons.items() if stats.get(key) is None},
        only("histogram"),
        only("log_histogram"),
        only("spectrum"),
        only("sketch"),
    )


def _finite(stats: Mapping[str, Any]) -> dict[str, Value]:
    """Return plain numbers, None where one is not finite; ValueError or TypeError where one is no number."""
    plain = {key: v if v is None or type(v) is int else float(v) for key, v in stats.items()}
    return {key: v if v is None or math.isfinite(v) else None for key, v in plain.items()}
