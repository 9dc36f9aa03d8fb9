"""Tables of a record for the terminal."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.findings import describe_diagnosis, group_by_cause, select_new
from fno_telemetry.quantities import columns, look_up
from fno_telemetry.records import place_name
from fno_telemetry.wording import format_number, to_printable
from fno_telemetry_cli.showing.channel_lines import channel_lines

# How early these columns are dropped on a narrow terminal, as `Quantity.gives_way` says of numbers.
_SHAPE_GIVES_WAY, _ROLE_GIVES_WAY = 1, 2
_NAMES_FOLD = 2  # names are folded before a column that gives way this late, or later, is dropped
_FOLDED_NAME = 20  # columns of the terminal that a folded name keeps while there is anything to drop
_NAMES_SHOWN = 3
_GAP = 2  # columns of the terminal between columns of a table
ROLE_STYLES = {
    "lifting": "cyan",
    "spectral": "magenta",
    "local": "blue",
    "block": "bold",
    "projection": "cyan",
}


def record_view(record: ft.CaptureRecord, width: int) -> RenderableType:
    """Return what `view` shows of a record: headline, modules in order, blocks, notes."""
    parts: list[RenderableType] = [
        headline(record),
        *accuracy_line(record),
        *map(shown, channel_lines(record)),
    ]
    parts += [Text(), *_fitting(_modules(record), width)]
    if record.blocks:
        parts += [Text(), *_fitting(_blocks(record), width)]
    found = [shown(line, "yellow") for line in (*_unmoved(record), *notes(record))]
    if record.findings is not None:
        found.append(Text(f"diagnosed: {describe_diagnosis(record)}", style="bold"))
        found += [
            shown(str(cause.finding))
            for cause in group_by_cause(select_new(record))
            if cause.finding.severity != "note"
        ]
    return Group(*parts, *([Text(), *found] if found else []))


def headline(record: ft.CaptureRecord) -> Text:
    """Return one line about the model, its weights and the samples of a record."""
    summary = record.summary
    parameters, samples = summary.get("n_parameters"), summary.get("n_samples")
    size = "" if parameters is None else f" {format_count(parameters, 'parameter')},"
    size_of_batches = summary.get("batch_size")
    batches = "" if size_of_batches is None else f" in batches of {size_of_batches}"
    run = "" if samples is None else f"; {format_count(samples, 'sample')}{batches}"
    step = "" if record.spelled_step is None else f", {record.spelled_step}"
    loss = "" if summary.get("loss") is None else f"; loss {format_number(summary['loss'], digits=4)}"
    light = "; light budget" if record.provenance.get("budget") == "light" else ""
    text = (
        f"{summary.get('architecture', 'model')}:{size} {_weights(summary.get('weights'))}{step}{run}{loss}"
        f"{light}"
    )
    return shown(text, "bold")


def notes(record: ft.CaptureRecord) -> Iterator[str]:
    """Yield a line for everything that a reader should know before trusting the numbers."""
    yield from (f"warning: {text}" for text in record.warnings)
    for what, entries in (
        ("not fired", record.not_fired),
        ("skipped", record.skipped),
        ("error", record.errors),
    ):
        places: dict[str, list[str]] = {}
        for entry in entries:
            places.setdefault(entry["reason"], []).append(entry["name"])
        yield from (f"{what}: {some(names)}: {reason}" for reason, names in places.items())


def accuracy_line(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield a line that says how the output compares with the target, where one was given."""
    if record.accuracy is None:
        return
    stats, reasons = record.accuracy.stats, record.accuracy.reasons
    parts = [
        f"{quantity.title} {number(value) if value is not None else f'undefined ({reasons.get(name)})'}"
        for name, quantity in look_up(stats, record.quantities).items()
        for value in (stats[name],)
    ]
    yield shown(f"accuracy: {', '.join(parts)}")


def _unmoved(record: ft.CaptureRecord) -> Iterator[str]:
    """Yield a line that names parameters which the training has not moved, where it has moved others."""
    unmoved = [parameter.name for parameter in record.parameters if parameter.stats.get("moved") == 0]
    if unmoved and any(parameter.stats.get("moved") for parameter in record.parameters):
        yield f"not moved since the first record: {some(unmoved)}"


def shown(text: str, style: str = "") -> Text:
    """Return one line of text that may come from a file, a model or another package."""
    return Text(to_printable(text), style=style)


def format_count(number: int, noun: str) -> str:
    """Return `1 sample`, `8 samples`, `656,002 parameters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def number(value: float | None) -> str:
    """Return a number as messages show it; a dash for what is undefined."""
    return "–" if value is None else format_number(value)


def folded(name: Text, width: int) -> Text:
    """Return a name with line breaks in front of dots, where it is too long for the width."""
    lines = [""]
    for part in re.split(r"(?=\.)", name.plain):
        if lines[-1] and Text(lines[-1] + part).cell_len > width:
            lines.append("")
        lines[-1] += part
    return Text("\n".join(lines), style=name.style)


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: Sequence[Text]
    is_number: bool = False
    gives_way: int = 0  # the highest goes first; 0 stays

    @property
    def width(self) -> int:
        return max(
            Text(line).cell_len for line in (*self.heading.split("\n"), *(c.plain for c in self.cells))
        )


def _weights(weights: str | None) -> str:
    if weights is None:
        return "weights as given"
    if weights.startswith("untrained"):
        return "untrained weights" + weights.removeprefix("untrained")
    return "weights from the checkpoint" if weights == "checkpoint" else f"weights {weights}"


def _modules(record: ft.CaptureRecord) -> list[_Column]:
    rows: list[tuple[Text, str, ft.TensorRecord]] = []
    if record.input is not None:
        rows.append((Text("input", style="dim"), "", record.input))
    for module in sorted(record.modules, key=lambda module: module.order):
        rows.append((shown(module.place), module.role, module))
    for output in record.outputs:
        rows.append((shown(place_name("output", 0, output.item), "dim"), "", output))
    shapes = [Text("×".join(map(str, entry.shape)) or "scalar") for _, _, entry in rows]
    return [
        _Column("module", [name for name, _, _ in rows]),
        _Column("role", [Text(r, style=ROLE_STYLES.get(r, "")) for _, r, _ in rows], False, _ROLE_GIVES_WAY),
        _Column("shape", shapes, False, _SHAPE_GIVES_WAY),
        *_numbers([entry for _, _, entry in rows], record),
    ]


def _blocks(record: ft.CaptureRecord) -> list[_Column]:
    names = [shown(block.place) for block in record.blocks]
    return [_Column("block", names), *_numbers(record.blocks, record)]


def _numbers(
    entries: Sequence[ft.TensorRecord | ft.BlockRecord], record: ft.CaptureRecord
) -> Iterator[_Column]:
    for quantity in columns([entry.stats for entry in entries], record.quantities):
        cells = [Text(number(entry.stats.get(quantity.name))) for entry in entries]
        yield _Column(quantity.column, cells, True, quantity.gives_way)


def _fitting(columns: list[_Column], width: int) -> Iterator[RenderableType]:
    """Yield a table of the columns that fit side by side, then a line that names the others."""
    shown = _choose(columns, width)
    names, *others = shown
    room = max(1, width - sum(column.width + _GAP for column in others))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in shown:
        justify = "right" if column.is_number else "left"
        # Only names may be broken; what is left of a broken number would be another number.
        table.add_column(
            column.heading,
            justify=justify,  # type: ignore[arg-type]
            vertical="bottom",
            no_wrap=column is not names,
            overflow="fold",
        )
    for name, *cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(folded(name, room), *cells)
    yield table
    if len(shown) < len(columns):
        left_out = [" ".join(column.heading.split()) for column in columns if column not in shown]
        yield Text(f"no room at this width for: {', '.join(left_out)}", style="dim")


def _choose(columns: list[_Column], width: int) -> list[_Column]:
    """Return the columns to show; those that give way earliest are dropped, of equal ones the last.

    Names, the first column, are folded before what a reader misses more than a line of its own.
    """
    names, *others = columns
    while others:
        # Of equal columns `max` takes the first.
        least = max(reversed(others), key=lambda column: column.gives_way)
        room = width - sum(column.width + _GAP for column in others)
        folds = least.gives_way <= _NAMES_FOLD
        if room >= (min(names.width, _FOLDED_NAME) if folds else names.width) or not least.gives_way:
            break
        others = [column for column in others if column is not least]
    return [names, *others]
