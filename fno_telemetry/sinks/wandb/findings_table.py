"""A record's findings in W&B, besides their counts: rows of a table, and an alert."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fno_telemetry import findings
from fno_telemetry.records import CaptureRecord

TABLE = "findings/table"
"""The key of the table, in the section of the counts."""

FILE = "findings.csv"
"""The table as a plain file."""

COLUMNS = ("step", "severity", "rule", "layer", "message", "evidence", "advice", "follows_from")

MOST_ROWS = 10_000
"""W&B shows no more rows of a table."""

MOST_TOLD = 3
"""Findings in one alert."""

_LONGEST_TITLE = 63
_LONGEST_LINE = 160
_LEVELS = {"error": "ERROR", "warning": "WARN"}


@dataclass(frozen=True)
class Alert:
    """A message that W&B sends to people, by mail or chat, as they have configured it there."""

    title: str
    text: str
    level: str


def table_rows(record: CaptureRecord) -> list[list[Any]]:
    """Return a row for each finding, in the record's order; [] if the record was not diagnosed."""
    rows: list[list[Any]] = []
    for found in record.findings or ():
        step = record.step if found.step is None else found.step
        texts = (found.layer, found.message, findings.evidence(found), found.advice, found.follows_from)
        shown = [None if text is None else findings.shorten(text) for text in texts]
        rows.append([step, found.severity, findings.shorten(found.rule), *shown])
    return rows


def as_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    """Return the table as a CSV file in UTF-8; what is None is empty."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([COLUMNS, *rows])
    return text.getvalue().encode()


def alert(record: CaptureRecord) -> Alert | None:
    """Return the alert for a record with a cause that is an error or a warning; None for any other.

    The text is a line for each of the first causes: severity, layer and message, no evidence and no path.
    """
    severe = [cause for cause in findings.causes(record) if cause.finding.severity in _LEVELS]
    # The errors first, and otherwise in the record's order.
    severe.sort(key=lambda cause: findings.SEVERITIES.index(cause.finding.severity))
    if not severe:
        return None
    worst = severe[0].finding
    when = "" if record.step is None else f" at {record.summary.get('step_kind') or 'step'} {record.step}"
    lines = [
        findings.shorten(f"{each.severity}: {each.layer or findings.MODEL}: {each.message}", _LONGEST_LINE)
        for each in (cause.finding for cause in severe[:MOST_TOLD])
    ]
    if len(severe) > MOST_TOLD:
        lines.append(f"and {len(severe) - MOST_TOLD} more")
    title = findings.shorten(f"{worst.severity}{when}: {worst.rule}", _LONGEST_TITLE)
    return Alert(title, "\n".join(lines), _LEVELS[worst.severity])
