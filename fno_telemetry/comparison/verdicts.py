"""Compares two records, a series of records (at which step it broke), or several runs with a baseline."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fno_telemetry.comparison.changes import LayerChange, Scales, block_change, module_change
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.comparison.trends import Series, series_of, sort_by_step
from fno_telemetry.errors import ReportError
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, place_name

Key = tuple[str, int, str | None]


@dataclass(frozen=True)
class Comparison:
    """The changes from the first record to the last, in execution order.

    In a series, `break_step` is the first step that is worse than the step before it and was not recovered
    from; `modules` and `blocks` then compare that step with the one before it. Without a break they compare
    the last record with the first.
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
        """Whether anything is worse, not only different."""
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
    """The number of runs in a group in which a statistic of a layer is worse than in the baseline."""

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
    """Compare records of captures on the same input: what changed, where first, since when, and is it worse.

    Two records are compared with each other. More records are a series over their steps or, with `group`,
    runs of one experiment that are each compared with the first. Layers are matched by canonical name, call
    and item.

    Raises:
        ReportError: there is no second record; inputs or numbers of samples differ without
            `allow_different_input`; a series mixes different kinds of steps.
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
    digests = {record.input_digest for record in (first, *others)}
    samples = {record.summary.get("n_samples") for record in (first, *others)}
    if len(digests) == 1 and len(samples) == 1:
        return ()
    if not allow_different_input:
        what = "inputs (digests)" if len(digests) > 1 else "numbers of samples"
        raise ReportError(
            f"the reports have different {what}, so differences would not show changes of the weights; "
            "capture on the same samples, or pass `allow_different_input=True`"
        )
    notes = ["the inputs differ; differences come from the weights and the inputs together"]
    if len({record.input.spatial_axes and _size(record) for record in (first, *others) if record.input}) > 1:
        notes.append("the resolutions differ; spectra are compared mode by mode, in cycles per field")
    return tuple(notes)


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
        raise ReportError(f"a series cannot mix different kinds of steps: {spelled}")
    records = sort_by_step(records)
    whole = _pair(records[0], records[-1], limits, notes)
    series = series_of(records, limits.share)
    broke = _break(records, limits)
    if broke is None:
        verdict = whole.verdict
        # Training may change a lot from start to end; only a break, or non-finite values, is worse.
        severity = whole.severity if whole.severity == "error" else ("note" if whole.severity else None)
        if severity != whole.severity:
            verdict = f"no break over {len(records)} steps; {_first_clause(whole)}"
        return _replace(whole, verdict, severity, None, series)
    index, pair = broke
    step = records[index].step
    at = records[index].spelled_step or f"report {index + 1}"
    return _replace(pair, f"broke at {at}: {pair.verdict}", pair.severity, step, series, notes)


def _break(records: list[CaptureRecord], limits: Thresholds) -> tuple[int, Comparison] | None:
    """Return the first step that is worse than the step before it and was not recovered from by the end.

    A return to an earlier state of the run is a recovery, however different it is from the step before.
    """
    for index in range(1, len(records)):
        pair = _pair(records[index - 1], records[index], limits)
        if not pair.worse or not _pair(records[index - 1], records[-1], limits).worse:
            continue
        if not _recovers(records, index, limits):
            return index, pair
    return None


def _recovers(records: list[CaptureRecord], index: int, limits: Thresholds) -> bool:
    """Whether, compared with some earlier record, the step before is worse and this step is not."""
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
    findings = [GroupFinding(layer, name, count, len(runs)) for (layer, name), count in counted.items()]
    worst = max(pairs, key=lambda pair: SEVERITIES.index(pair.severity) if pair.severity else -1)
    worse = sum(pair.worse for pair in pairs)
    firsts = Counter(pair.first_diverging for pair in pairs if pair.first_diverging)
    often = ""
    if firsts:
        place, count = firsts.most_common(1)[0]
        often = f"; first diverging at {place} in {count} of {len(runs)}"
    verdict = f"{worse} of {len(runs)} runs are worse than the baseline{often}"
    findings.sort(key=lambda finding: -finding.runs)
    return _replace(worst, verdict, worst.severity, None, None, notes, tuple(findings))


def _replace(
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
    severities = [SEVERITIES.index(layer.severity) for layer in layers if layer.severity]
    if not severities:
        return "note" if any(layer.differs for layer in layers) else None
    return SEVERITIES[max(severities)]


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
    more = f" (and {len(worse) - 1} more)" if len(worse) > 1 else ""
    return f"worse: in {first.place}, {message}{more}; first diverging {diverging.place}{structure}"


def _first_clause(pair: Comparison) -> str:
    return f"from first to last, {pair.verdict.removeprefix('worse: ')}"
