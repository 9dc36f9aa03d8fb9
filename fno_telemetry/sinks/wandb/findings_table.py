"""A record's findings in W&B, in addition to their counts: rows of a table, and an alert."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fno_telemetry import findings
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.wandb.tables import Table
from fno_telemetry.wording import to_one_line

TABLE = "findings/table"
"""The key of the table, in the section of the counts."""

FILE = "findings.csv"
"""The table as a plain file."""

COLUMNS = ("step", "severity", "rule", "layer", "message", "evidence", "advice", "follows_from")

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
    """Return a row for each finding, each cause followed by its consequences; [] if it was not diagnosed.

    `follows_from` is the id of the cause, which may be in the record of an earlier step; empty for a cause.
    """
    rows: list[list[Any]] = []
    for cause in findings.group_by_cause(record.findings or ()):
        rows.append(_row(record, cause.finding, cause.finding.follows_from))
        rows += [_row(record, found, cause.finding.id) for found in cause.consequences]
    return rows


def make_table(rows: Sequence[Sequence[Any]]) -> Table:
    """Return the table of these rows."""
    return Table(TABLE, FILE, COLUMNS, rows)


def alert(record: CaptureRecord) -> Alert | None:
    """Return the alert for a record with a new cause that is an error or a warning; None for any other.

    The text is a line for each of the first causes: severity, layer and message, no evidence and no path.
    """
    causes = [cause.finding for cause in findings.group_by_cause(findings.select_new(record))]
    severe = [cause for cause in causes if cause.severity in _LEVELS]
    # The errors first, and otherwise in the record's order.
    severe.sort(key=lambda cause: -findings.SEVERITIES.index(cause.severity))
    if not severe:
        return None
    worst = severe[0]
    when = "" if record.spelled_step is None else f" at {record.spelled_step}"
    lines = [
        to_one_line(f"{each.severity}: {each.where}: {each.message}", _LONGEST_LINE)
        for each in severe[:MOST_TOLD]
    ]
    if len(severe) > MOST_TOLD:
        lines.append(f"and {len(severe) - MOST_TOLD} more")
    title = to_one_line(f"{worst.severity}{when}: {worst.rule}", _LONGEST_TITLE)
    return Alert(title, "\n".join(lines), _LEVELS[worst.severity])


def _row(record: CaptureRecord, found: findings.Finding, cause: str | None) -> list[Any]:
    step = record.step if found.step is None else found.step
    evidence = findings.describe_evidence(found)
    texts = (found.severity, found.rule, found.layer, found.message, evidence, found.what_to_do, cause)
    shown = [None if text is None else to_one_line(text, findings.LONGEST_TEXT) for text in texts]
    return [step, *shown]
