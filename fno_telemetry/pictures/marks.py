"""The findings of a series as marks at its steps: a line for each, and numbers that do not overlap."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fno_telemetry.findings import Finding, group_by_cause, select_new
from fno_telemetry.pictures.canvas import LETTER, SMALL
from fno_telemetry.pictures.themes import Theme
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import to_one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_TEXT = 120


@dataclass(frozen=True)
class Mark:
    """A finding of a series: the column of its step, its place, and what a legend says of it."""

    column: int
    place: str | None
    text: str


def find_marks(records: Sequence[CaptureRecord], findings: Iterable[Finding] | None = None) -> list[Mark]:
    """Return the errors and warnings that nothing explains, each at the step where it was found first.

    `findings` are those of a diagnosis of the whole series; without them, those that the records have.
    """
    if findings is None:
        findings = [finding for record in records for finding in select_new(record)]
    columns = {record.label: column for column, record in enumerate(records)}
    steps = {record.step: column for column, record in enumerate(records) if record.step is not None}
    found: dict[tuple[str, str | None], Mark] = {}
    for cause in group_by_cause(findings):
        finding = cause.finding
        label, _, _ = finding.id.partition(":")
        column = columns.get(label, -1 if finding.step is None else steps.get(finding.step, -1))
        if finding.severity != "note" and column >= 0:
            text = to_one_line(f"{finding.when}: {finding.where}: {finding.message}", _LONGEST_TEXT)
            found.setdefault((finding.rule, finding.layer), Mark(column, finding.layer, text))
    return sorted(found.values(), key=lambda mark: mark.column)


def draw_marks(axes: "Axes", theme: Theme, marks: Sequence[Mark], columns_of_inch: float) -> None:
    """Draw a line for each finding, numbered above."""
    for mark in marks:
        axes.axvline(mark.column, color=theme.alert, linewidth=0.9, linestyle=(0, (3, 2)), zorder=2)
    for column, text in number_marks([mark.column for mark in marks], LETTER * columns_of_inch):
        axes.annotate(
            text,
            (column, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            color=theme.alert,
            fontsize=SMALL,
            horizontalalignment="center",
        )


def number_marks(columns: Sequence[int], columns_of_letter: float) -> list[tuple[int, str]]:
    """Return the numbers of marks, from 1 up, with their columns; those that would overlap share a text."""
    texts = [(column, number, number) for number, column in enumerate(columns, 1)]
    place = 0
    while place + 1 < len(texts):
        (column, first, last), (next_column, next_first, next_last) = texts[place : place + 2]
        letters = (len(_span(first, last)) + len(_span(next_first, next_last))) / 2 + 1
        if next_column - column < letters * columns_of_letter:
            texts[place : place + 2] = [(column, first, next_last)]
            place = max(place - 1, 0)  # it has become wider
        else:
            place += 1
    return [(column, _span(first, last)) for column, first, last in texts]


def _span(first: int, last: int) -> str:
    """Return `1`, `1,2` or `1–5`."""
    return str(first) if first == last else f"{first}{',' if last == first + 1 else '–'}{last}"
