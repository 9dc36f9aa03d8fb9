"""What a notebook shows of a record: the table of `view`, without any other package."""

from collections.abc import Iterator
from html import escape

from fno_telemetry.findings import describe_diagnosis, group_by_cause, select_new
from fno_telemetry.page.tables import Table, block_table, module_table
from fno_telemetry.record_text import list_facts
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import to_printable

MOST_ROWS = 60
"""Rows of a table in a notebook; `record.rows()` has all."""


def describe_for_notebook(record: CaptureRecord) -> str:
    """Return HTML: what the record is of, what was found, and the tables of modules and blocks."""
    return "".join(_parts(record))


def _parts(record: CaptureRecord) -> Iterator[str]:
    name = record.summary.get("architecture") or "a model"
    facts = "<br>".join(_text(line) for line in list_facts(record))
    yield f"<p><b>{_text(str(name))}</b><br>{facts}</p>"
    if record.findings is not None:
        causes = [cause.finding for cause in group_by_cause(select_new(record))]
        lines = [_text(str(finding)) for finding in causes if finding.severity != "note"]
        yield f"<p>diagnosed: {'<br>'.join([_text(describe_diagnosis(record)), *lines])}</p>"
    for table in (module_table(record), block_table(record)):
        if table is not None and table.rows:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield f"<table><caption>{_text(table.caption)}</caption><thead><tr>"
    for column in table.columns:
        hint = f' title="{_text(column.title)}"' if column.title else ""
        yield f"<th{hint}>{_text(column.heading)}</th>"
    yield "</tr></thead><tbody>"
    for row in table.rows[:MOST_ROWS]:
        name, *cells = row.cells
        yield f"<tr><th>{_text(name)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
    yield "</tbody></table>"
    if len(table.rows) > MOST_ROWS:
        yield f"<p>and {len(table.rows) - MOST_ROWS} more in <code>record.rows()</code></p>"


def _text(text: str) -> str:
    return escape(to_printable(text))
