"""How records read as text: a capture on one screen, each of its entries in one line.

A record may come from anywhere, so whatever is missing in it is left out, and nothing here raises.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import TYPE_CHECKING, TypeGuard

from fno_telemetry.wording import format_number, to_printable

if TYPE_CHECKING:
    from fno_telemetry.findings import Finding
    from fno_telemetry.records import (
        AccuracyRecord,
        BlockRecord,
        CaptureRecord,
        ModuleRecord,
        ParameterRecord,
        TensorRecord,
    )

LINES = 24
"""A capture has at most this many lines, however deep the network is."""

COLUMNS = 100
"""A line of a capture has at most this many characters."""

_SHOWN_ABOVE_ZERO = ("nan_count", "inf_count")
_OF_TENSORS = ("rms", "sample_variation", "low_frequency_fraction", "dead_channel_fraction", "grad_norm")
_OF_DIGEST = 8  # digits that are enough to tell values apart by eye
_OF_ACCURACY = ("relative_l2", "error_to_mean_predictor", "output_to_target_rms", "effective_resolution")
_OF_BLOCKS = ("spectral_share", "update_ratio", "gain")
_FINDINGS_SHOWN = 3
_SEVERITIES = ("error", "warning", "note")
_GAP = "  "

_Extreme = tuple[str, str]
"""A number, and where it was measured."""


def describe_capture(record: "CaptureRecord") -> str:
    """Return what a reader wants to know first, in at most LINES lines of COLUMNS characters.

    The network, its weights and samples; how much was measured; the first findings; and for the most telling
    statistics the input, the output, and the modules or blocks with the lowest and the highest value.
    """
    table = _table(_rows(record))
    lines = [*_facts(record), *_findings(record.findings), "", *table, *([""] if table else [])]
    lines.append("more: record.module(name).stats, record.block(name).stats, record.rows() for pandas")
    return "\n".join(_cut(to_printable(line), COLUMNS) for line in lines)


def describe_tensor(record: "TensorRecord") -> str:
    """Return the item, shape, dtype and rms in one line."""
    item = "" if record.item is None else f" {record.item!r}"
    return to_printable(f"<TensorRecord{item}: {_tensor(record)}>")


def describe_module(record: "ModuleRecord") -> str:
    """Return the place, role, class, shape, dtype and rms in one line."""
    text = f"<ModuleRecord {record.place!r}: {record.role}, {record.class_name}, {_tensor(record)}>"
    return to_printable(text)


def describe_block(record: "BlockRecord") -> str:
    """Return the place and the most telling statistics in one line."""
    numbers = [f"{name} {_number(record.stats.get(name))}" for name in _OF_BLOCKS]
    return to_printable(f"<BlockRecord {record.place!r}: {', '.join(numbers)}>")


def describe_parameter(record: "ParameterRecord") -> str:
    """Return the name, shape and how far it moved, or its digest, in one line."""
    shape = "×".join(map(str, record.shape)) or "scalar"
    state = f"moved {_number(record.stats.get('moved'))}"
    if record.digest is not None:
        state = f"digest {record.digest[:_OF_DIGEST]}"
    return to_printable(f"<ParameterRecord {record.name!r}: {shape} {record.dtype}, {state}>")


def describe_accuracy(record: "AccuracyRecord") -> str:
    """Return the most telling statistics in one line."""
    numbers = [f"{name} {_number(record.stats.get(name))}" for name in _OF_ACCURACY]
    return to_printable(f"<AccuracyRecord: {', '.join(numbers)}>")


def _tensor(record: "TensorRecord") -> str:
    shape = "×".join(map(str, record.shape)) or "scalar"
    return f"{shape} {record.dtype}, rms {_number(record.stats.get('rms'))}"


def list_facts(record: "CaptureRecord") -> list[str]:
    """Return what a record is of: its weights and step; its samples, if known; how much was measured."""
    summary = record.summary
    about = (
        _count(summary.get("n_parameters"), "parameter"),
        # In a training the step says which weights these are.
        "" if record.stage and not summary.get("weights") else _weights(summary.get("weights")),
        record.spelled_step or "step unknown",
    )
    samples, size = _count(summary.get("n_samples"), "sample"), summary.get("batch_size")
    loss = summary.get("loss")
    run = (
        f"{samples} in batches of {size}" if samples and size else samples,
        str(summary.get("device") or ""),
        str(summary.get("dtype") or ""),
        "" if loss is None else f"loss {_number(loss)}",
        "" if record.resolution is None else f"fields at {record.resolution.factor:g} times the resolution",
        "light budget" if record.provenance.get("budget") == "light" else "",
    )
    names = len({module.name for module in record.modules})
    outputs = f" ({len(record.modules)} outputs)" if len(record.modules) > names else ""
    measured = f"measured: {_count(names, 'module')}{outputs}, {_count(len(record.blocks), 'block')}"
    return [_joined(about), *([_joined(run)] if any(run) else []), measured]


def _facts(record: "CaptureRecord") -> Iterator[str]:
    about, *others = list_facts(record)
    yield f"CaptureRecord of {record.summary.get('architecture') or 'a model'}: {about}"
    yield from others
    notes = [
        f"record.{name} ({len(entries)})"
        for name in ("warnings", "errors", "skipped", "not_fired")
        if (entries := getattr(record, name))
    ]
    if notes:
        yield f"notes: {', '.join(notes)}"
    yield from (f"  warning: {text}" for text in record.warnings[:1])


def _findings(findings: "Sequence[Finding] | None") -> Iterator[str]:
    """Yield how many causes there are of each severity, and the first of them."""
    if findings is None:
        yield "findings: not diagnosed; ft.diagnose(record) looks for faults"
        return
    causes: list[Finding] = []
    seen: set[str] = set()
    for finding in findings:
        if finding.follows_from not in seen:
            causes.append(finding)
        seen.add(finding.id)
    by_severity = {name: [cause for cause in causes if cause.severity == name] for name in _SEVERITIES}
    counts = [_count(len(found), name) for name, found in by_severity.items() if found]
    yield f"findings: {', '.join(counts) or 'nothing found'}"
    yield from (f"  {cause}" for cause in [*chain(*by_severity.values())][:_FINDINGS_SHOWN])
    if len(causes) > _FINDINGS_SHOWN:
        yield f"  and {len(causes) - _FINDINGS_SHOWN} more in record.findings"


@dataclass(frozen=True)
class _Row:
    """One statistic of a capture."""

    statistic: str
    input: str
    output: str
    lowest: _Extreme
    highest: _Extreme


def _rows(record: "CaptureRecord") -> list[_Row]:
    """Return a row for each statistic that is defined somewhere."""
    modules = sorted(record.modules, key=lambda module: module.order)
    rows = []
    for name in (*_SHOWN_ABOVE_ZERO, *_OF_TENSORS, *_OF_BLOCKS):
        entries: Sequence[ModuleRecord | BlockRecord] = record.blocks if name in _OF_BLOCKS else modules
        sides = () if name in _OF_BLOCKS else (record.input, record.output)
        ends = [None if side is None else side.stats.get(name) for side in sides] or [None, None]
        measured = [(entry.stats.get(name), entry.place) for entry in entries]
        found = [(value, place) for value, place in measured if _is_defined(value)]
        known = [value for value in chain(ends, (value for value, _ in found)) if _is_defined(value)]
        if any(known) if name in _SHOWN_ABOVE_ZERO else known:
            before, after = (_number(end) if _is_defined(end) else "" for end in ends)
            rows.append(_Row(name, before, after, *_extremes(found)))
    return rows


def _extremes(found: Sequence[tuple[float, str]]) -> tuple[_Extreme, _Extreme]:
    """Return the lowest and the highest value with their places, the first ones of equal values."""
    if not found:
        return ("", ""), ("", "")
    low, high = (choose(found, key=lambda each: each[0]) for choose in (min, max))
    if low[0] == high[0]:
        return (_number(low[0]), low[1] if len(found) == 1 else "everywhere"), ("", "")
    return (_number(low[0]), low[1]), (_number(high[0]), high[1])


def _table(rows: Sequence[_Row]) -> list[str]:
    """Return the rows below a heading, as wide as COLUMNS at most; [] without a row."""
    if not rows:
        return []
    cells = [
        ("", "input", "output", "lowest", "in", "highest", "in"),
        *((row.statistic, row.input, row.output, *row.lowest, *row.highest) for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # A space before a place, a gap before each other column; the places share what is left.
    room = (COLUMNS - sum(widths[index] for index in (0, 1, 2, 3, 5)) - 4 * len(_GAP) - 2) // 2

    def line(name: str, before: str, after: str, low: str, low_in: str, high: str, high_in: str) -> str:
        return _GAP.join(
            (
                name.ljust(widths[0]),
                before.rjust(widths[1]),
                after.rjust(widths[2]),
                f"{low.rjust(widths[3])} {_cut_start(low_in, room).ljust(min(room, widths[4]))}",
                f"{high.rjust(widths[5])} {_cut_start(high_in, room)}",
            )
        ).rstrip()

    return [line(*row) for row in cells]


def _weights(weights: object) -> str:
    if weights is None:
        return "weights as given"
    text = str(weights)
    if text.startswith("untrained"):
        return f"untrained weights{text.removeprefix('untrained')}"
    return "weights from the checkpoint" if text == "checkpoint" else f"weights {text}"


def _is_defined(value: object) -> TypeGuard[float]:
    return isinstance(value, int) or (isinstance(value, Real) and math.isfinite(value))


def _number(value: object) -> str:
    if not _is_defined(value):
        return "undefined" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else format_number(value)


def _count(number: object, noun: str) -> str:
    """Return "1 sample", "8 samples", "656,002 parameters"; "" where the number is unknown."""
    return "" if number is None else f"{_number(number)} {noun}{'' if number == 1 else 's'}"


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(part for part in parts if part)


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _cut_start(place: str, longest: int) -> str:
    """Return the place cut to this length; the end of a path tells more than its beginning."""
    return place if len(place) <= longest else f"…{place[len(place) - longest + 1 :]}"
