"""Compares records: two, a series over steps, or a group of runs with a baseline."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fno_telemetry.comparison.changes import LayerChange, Scales, block_change, module_change
from fno_telemetry.comparison.series import Series, series_of, sort_by_step
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.errors import ReportError
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, place_name

Key = tuple[str, int, str | None]


@dataclass(frozen=True)
class Comparison:
    """What changed from the first record to the last, in execution order.

    In a series `break_step` is the step from which the run was worse than just before and stayed so, and
    `modules`, `blocks` show that step against the one before it; without a break, the last against the first.
    """

    verdict: str
    severity: str | None
    first_diverging: str | None
    modules: tuple[LayerChange, ...]
    blocks: tuple[LayerChange, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    break_step: int | None = None
    series: Series | None = None
    group: tuple["GroupFinding", ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def worse(self) -> bool:
        """Whether something is worse, not merely different."""
        return self.severity in SEVERITIES[1:]

    def __str__(self) -> str:
        worse = [
            f"{layer.place}: {change.message}"
            for layer in (*self.modules, *self.blocks)
            for change in layer.changes
            if change.severity != "note"
        ]
        return "\n".join([self.verdict, *self.notes, *worse])


@dataclass(frozen=True)
class GroupFinding:
    """In how many runs of a group the same thing is worse than in the baseline."""

    layer: str
    statistic: str
    runs: int
    of: int


def compare(
    first: CaptureRecord,
    *others: CaptureRecord,
    thresholds: Thresholds | None = None,
    allow_different_input: bool = False,
    group: bool = False,
) -> Comparison:
    """Compare records of captures on the same input: what changed, where first, since when, is it worse.

    Two records are compared with each other; more are a series over their steps, or with `group` runs of one
    experiment that are each compared with the first. Layers are matched by canonical name, call and item.

    Raises:
        ReportError: no second record; other input or another number of samples without
            `allow_different_input`; steps of different kinds in one series.
    """
    if not others:
        raise ReportError("compare needs at least two reports")
    limits = thresholds or Thresholds()
    notes = _notes(first, others, allow_different_input)
    if group:
        return _grouped(first, others, limits, notes)
    if len(others) == 1:
        return _pair(first, others[0], limits, notes)
    return _over_steps([first, *others], limits, notes)


def _notes(
    first: CaptureRecord, others: Sequence[CaptureRecord], allow_different_input: bool
) -> tuple[str, ...]:
    digests = {_digest(record) for record in (first, *others)}
    samples = {record.summary.get("n_samples") for record in (first, *others)}
    if len(digests) == 1 and len(samples) == 1:
        return ()
    if not allow_different_input:
        what = "input (digest)" if len(digests) > 1 else "number of samples"
        raise ReportError(
            f"the reports are of different {what}, so differences would say nothing about the weights; "
            "capture on the same samples, or pass --allow-different-input"
        )
    notes = ["the inputs differ: differences are of weights and input together"]
    if len({record.input.spatial_axes and _size(record) for record in (first, *others) if record.input}) > 1:
        notes.append("the resolutions differ: spectra are compared mode by mode, in cycles per field")
    return tuple(notes)


def _digest(record: CaptureRecord) -> object:
    return record.provenance.get("input", {}).get("digest")


def _size(record: CaptureRecord) -> tuple[int, ...]:
    entry = record.input
    return tuple(entry.shape[axis] for axis in entry.spatial_axes) if entry else ()


def _pair(
    before: CaptureRecord, after: CaptureRecord, limits: Thresholds, notes: tuple[str, ...] = ()
) -> Comparison:
    old, new = _modules(before), _modules(after)
    scales = Scales.of(before)
    stored = (*after.quantities, *before.quantities)
    modules = tuple(
        module_change(old[key], entry, limits, scales, stored) for key, entry in new.items() if key in old
    )
    old_blocks, new_blocks = _blocks(before), _blocks(after)
    blocks = tuple(
        block_change(old_blocks[key], entry, limits, stored)
        for key, entry in new_blocks.items()
        if key in old_blocks
    )
    diverging = next((layer for layer in modules if layer.differs), None)
    if diverging is None:
        diverging = next((layer for layer in blocks if layer.differs), None)
    added = tuple(place_name(*key) for key in new if key not in old)
    removed = tuple(place_name(*key) for key in old if key not in new)
    severity = _highest([*modules, *blocks])
    return Comparison(
        verdict=_verdict(modules, blocks, diverging, added, removed, severity),
        severity=severity,
        first_diverging=diverging.place if diverging else None,
        modules=modules,
        blocks=blocks,
        added=added,
        removed=removed,
        notes=notes,
    )


def _over_steps(records: list[CaptureRecord], limits: Thresholds, notes: tuple[str, ...]) -> Comparison:
    kinds = {record.summary.get("step_kind") for record in records}
    if len(kinds) > 1:
        spelled = ", ".join(sorted(str(kind or "none") for kind in kinds))
        raise ReportError(f"steps of different kinds do not make one series: {spelled}")
    records = sort_by_step(records)
    whole = _pair(records[0], records[-1], limits, notes)
    series = series_of(records, limits.share)
    broke = _break(records, limits)
    if broke is None:
        verdict = whole.verdict
        # From an untrained start to the end much may change; only a break, or broken values, is worse.
        severity = whole.severity if whole.severity == "error" else ("note" if whole.severity else None)
        if severity != whole.severity:
            verdict = f"no break over {len(records)} steps; {_first_clause(whole)}"
        return _replaced(whole, verdict, severity, None, series)
    index, pair = broke
    step = records[index].step
    at = records[index].spelled_step or f"report {index + 1}"
    return _replaced(pair, f"broke at {at}: {pair.verdict}", pair.severity, step, series, notes)


def _break(records: list[CaptureRecord], limits: Thresholds) -> tuple[int, Comparison] | None:
    """Return the first step that is worse than the one before it and was not recovered by the end.

    A step back to what the run was like before is a recovery, however far it is from the step just before.
    """
    for index in range(1, len(records)):
        pair = _pair(records[index - 1], records[index], limits)
        if not pair.worse or not _pair(records[index - 1], records[-1], limits).worse:
            continue
        if not _recovers(records, index, limits):
            return index, pair
    return None


def _recovers(records: list[CaptureRecord], index: int, limits: Thresholds) -> bool:
    """Whether some earlier record is worse off at the step just before, and not at this one."""
    return any(
        _pair(earlier, records[index - 1], limits).worse and not _pair(earlier, records[index], limits).worse
        for earlier in records[: index - 1]
    )


def _grouped(
    baseline: CaptureRecord, runs: Sequence[CaptureRecord], limits: Thresholds, notes: tuple[str, ...]
) -> Comparison:
    pairs = [_pair(baseline, run, limits) for run in runs]
    counted: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        counted.update(
            {
                (layer.place, change.statistic)
                for layer in (*pair.modules, *pair.blocks)
                for change in layer.changes
                if change.severity != "note"
            }
        )
    found = [GroupFinding(layer, name, count, len(runs)) for (layer, name), count in counted.items()]
    worst = max(pairs, key=lambda pair: SEVERITIES.index(pair.severity) if pair.severity else -1)
    worse = sum(pair.worse for pair in pairs)
    firsts = Counter(pair.first_diverging for pair in pairs if pair.first_diverging)
    often = ""
    if firsts:
        place, count = firsts.most_common(1)[0]
        often = f"; first diverging at {place} in {count} of {len(runs)}"
    verdict = f"{worse} of {len(runs)} runs are worse than the baseline{often}"
    found.sort(key=lambda finding: -finding.runs)
    return _replaced(worst, verdict, worst.severity, None, None, notes, tuple(found))


def _replaced(
    pair: Comparison,
    verdict: str,
    severity: str | None,
    break_step: int | None,
    series: Series | None,
    notes: tuple[str, ...] | None = None,
    group: tuple[GroupFinding, ...] = (),
) -> Comparison:
    return Comparison(
        verdict=verdict,
        severity=severity,
        first_diverging=pair.first_diverging,
        modules=pair.modules,
        blocks=pair.blocks,
        added=pair.added,
        removed=pair.removed,
        break_step=break_step,
        series=series,
        group=group,
        notes=pair.notes if notes is None else notes,
    )


def _modules(record: CaptureRecord) -> dict[Key, ModuleRecord]:
    return {(m.name, m.call, m.item): m for m in sorted(record.modules, key=lambda m: m.order)}


def _blocks(record: CaptureRecord) -> dict[tuple[str, int], BlockRecord]:
    return {(block.name, block.call): block for block in record.blocks}


def _highest(layers: Sequence[LayerChange]) -> str | None:
    found = [SEVERITIES.index(layer.severity) for layer in layers if layer.severity]
    if not found:
        return "note" if any(layer.differs for layer in layers) else None
    return SEVERITIES[max(found)]


def _verdict(
    modules: Sequence[LayerChange],
    blocks: Sequence[LayerChange],
    diverging: LayerChange | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    severity: str | None,
) -> str:
    structure = f"; {len(added)} layers added, {len(removed)} removed" if added or removed else ""
    if not modules and not blocks:
        return f"nothing in common{structure}"
    if diverging is None:
        return f"the same within the thresholds{structure}"
    worse = [layer for layer in (*modules, *blocks) if layer.severity in SEVERITIES[1:]]
    if not worse or severity not in SEVERITIES[1:]:
        differing = sum(layer.differs for layer in modules)
        return (
            f"different, not worse: {differing} of {len(modules)} layers, first {diverging.place}{structure}"
        )
    first = worse[0]
    message = next(change.message for change in first.changes if change.severity != "note")
    more = f", and {len(worse) - 1} more" if len(worse) > 1 else ""
    return f"worse: {first.place} {message}{more}; first diverging {diverging.place}{structure}"


def _first_clause(pair: Comparison) -> str:
    return f"from first to last, {pair.verdict.removeprefix('worse: ')}"
