"""A record as Markdown for TensorBoard's Text tab: a table of layers and blocks, and a list of findings."""

import re
from collections.abc import Iterable, Mapping

from fno_telemetry import findings, keys, quantities
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import CaptureRecord, Value
from fno_telemetry.wording import format_number, to_one_line

MOST_CAUSES = 50
"""The list of findings is no longer than this; the first causes in a record explain most."""

NO_STEP = "step: unknown"
"""How the table of a record without a step begins."""

_SUMMARY = ("architecture", "weights", "n_samples", "n_modules", "n_parameters", "device", "dtype")
# Whatever could have a meaning in Markdown or HTML.
_MARKS = re.compile(r"[^\w\s.,:=+/-]|_")


def table(record: CaptureRecord) -> str:
    """Return the record as Markdown: a summary line, layers in execution order, blocks, warnings."""
    parts = [_summary_line(record)]
    modules = keys.modules_in_order(record)
    shown = quantities.columns([module.stats for module in modules], record.quantities)
    rows = [
        [module.place, module.role, "x".join(map(str, module.shape)), *_numbers(module.stats, shown)]
        for module in modules
    ]
    parts.append(_rows(["layer", "role", "shape", *map(_heading, shown)], rows))
    if record.blocks:
        shown = quantities.columns([block.stats for block in record.blocks], record.quantities)
        rows = [[block.place, *_numbers(block.stats, shown)] for block in record.blocks]
        parts.append(_rows(["block", *map(_heading, shown)], rows))
    if record.warnings:
        parts.append("\n".join(f"- warning: {escape(warning)}" for warning in record.warnings))
    return "\n\n".join(parts)


def findings_list(record: CaptureRecord, most: int = MOST_CAUSES) -> str | None:
    """Return the findings as Markdown, each cause with its consequences below it; None if not diagnosed.

    A list, because TensorBoard breaks words in narrow columns.
    """
    if record.findings is None:
        return None
    causes = findings.group_by_cause(record.findings)
    if not causes:
        return findings.NOTHING_FOUND
    lines = [line for cause in causes[:most] for line in cause_lines(cause)]
    if len(causes) > most:
        lines += ["", f"{len(causes) - most} more are in the report."]
    return "\n".join(lines)


def cause_lines(cause: findings.Cause, when: str = "") -> list[str]:
    """Return a list item for a cause, with its evidence, advice and consequences below it."""
    found = cause.finding
    message = to_one_line(found.message, findings.LONGEST_TEXT)
    name = f"{escape(found.severity)}{when}: {escape(found.where)}"
    advice = to_one_line(found.what_to_do, findings.LONGEST_TEXT)
    below = (findings.describe_evidence(found), advice, cause.follows_from, cause.what_follows)
    return [
        f"- **{name}** {escape(f'{message} ({found.rule})')}",
        *(f"    - {escape(line)}" for line in below if line),
    ]


def escape(text: object) -> str:
    """Return one line of Markdown that shows just this text: no character in it has a meaning of its own."""
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", to_one_line(str(text)))


def _summary_line(record: CaptureRecord) -> str:
    step = NO_STEP if record.step is None else f"step: {record.step}"
    known = [f"{name}: {escape(record.summary[name])}" for name in _SUMMARY if record.summary.get(name)]
    return ", ".join([step, *known])


def _heading(quantity: Quantity) -> str:
    # Underscores would be read as marks.
    return escape(" ".join(quantity.column.split()))


def _numbers(stats: Mapping[str, Value], shown: Iterable[Quantity]) -> list[str]:
    return [format_value(stats.get(quantity.name), quantity.keeps_one) for quantity in shown]


def format_value(value: Value, keeps_one: bool = True) -> str:
    """Return a number as the tables show it; a dash for what is undefined."""
    return format_number(value, keeps_one=keeps_one) if keys.is_defined(value) else "-"


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
