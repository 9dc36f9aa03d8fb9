"""The tables of a page and of a notebook, as plain text in rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from fno_telemetry import keys
from fno_telemetry.comparison import LayerChange
from fno_telemetry.quantities import columns, look_up
from fno_telemetry.records import (
    AccuracyRecord,
    BandAccuracy,
    BlockRecord,
    CaptureRecord,
    ModuleRecord,
    TensorRecord,
    Value,
    place_name,
)
from fno_telemetry.wording import format_number, format_percent, to_printable

UNDEFINED = "–"
_LONGEST_VALUE = 2000


@dataclass(frozen=True)
class Column:
    """The heading of a column, what it says under the pointer, and whether its cells are numbers."""

    heading: str
    title: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Row:
    """The cells of a row; the place of the layer that the first one names, or None."""

    cells: tuple[str, ...]
    place: str | None = None
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first column has names."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def module_table(record: CaptureRecord) -> Table:
    """Return the inputs, the modules in order, the outputs and the target, with the numbers of `view`."""
    rows: list[tuple[str, str, TensorRecord, str]] = []
    for entered in record.inputs or ([] if record.input is None else [record.input]):
        name = place_name("input", 0, entered.item)
        rows.append((name, "", entered, name))
    for module in keys.modules_in_order(record):
        rows.append((module.place, module.role, module, module.place))
    for output in record.outputs:
        name = place_name("output", 0, output.item)
        rows.append((name, "", output, name))
    if record.target is not None:
        rows.append(("target", "", record.target, "target"))
    quantities = columns([entry.stats for _, _, entry, _ in rows], record.quantities)
    heads = [Column(" ".join(each.column.split()), each.title, True) for each in quantities]
    return Table(
        "Modules in the order in which they finished",
        (Column("module"), Column("role"), Column("shape"), *heads),
        tuple(
            Row(
                (
                    to_printable(name),
                    role,
                    shape_of(entry),
                    *(show(entry.stats.get(each.name), each.keeps_one) for each in quantities),
                ),
                place,
            )
            for name, role, entry, place in rows
        ),
    )


def block_table(record: CaptureRecord) -> Table | None:
    """Return the blocks with the numbers of `view`; None without blocks."""
    if not record.blocks:
        return None
    quantities = columns([block.stats for block in record.blocks], record.quantities)
    heads = [Column(" ".join(each.column.split()), each.title, True) for each in quantities]
    return Table(
        "Blocks: where a spectral and a local branch are added",
        (Column("block"), *heads),
        tuple(
            Row(
                (
                    to_printable(block.place),
                    *(show(block.stats.get(each.name), each.keeps_one) for each in quantities),
                ),
                block.place,
            )
            for block in record.blocks
        ),
    )


def number_table(record: CaptureRecord, *entries: TensorRecord | BlockRecord | AccuracyRecord) -> Table:
    """Return every number of these entries with its title, and the reason where it is undefined."""
    rows = []
    for entry in entries:
        for name, quantity in look_up(entry.stats, record.quantities).items():
            value = entry.stats[name]
            shown = show(value, quantity.keeps_one, digits=4)
            if value is None and (reason := entry.reasons.get(name)):
                shown = f"{UNDEFINED} {to_printable(reason)}"
            rows.append(Row((to_printable(quantity.title), shown, to_printable(name))))
    return Table("", (Column("number"), Column("value", is_number=True), Column("key")), tuple(rows))


def band_table(bands: BandAccuracy) -> Table:
    """Return how output and target compare by octave."""
    pooled = bands.pool()
    edges = [f"{edge:g}" if edge > 1 / 2 else str(Fraction(edge)) for edge in pooled.band_edges]
    spans = ["mean", *(f"{above} to {below}" for above, below in pairwise(edges))]
    total = sum(pooled.target)
    shares = [format_percent(energy / total) if total else UNDEFINED for energy in pooled.target]
    numbers = (pooled.band_error, pooled.spectrum_ratio, pooled.band_coherence)
    heads = ("energy of the target", "relative error", "output / target", "coherence")
    return Table(
        "Output and target by octave",
        (Column("cycles per grid point"), *(Column(head, is_number=True) for head in heads)),
        tuple(
            Row((span, share, *map(show, row)))
            for span, share, *row in zip(spans, shares, *numbers, strict=True)
        ),
    )


def change_table(layers: Sequence[LayerChange]) -> Table:
    """Return what changed in layers and blocks, in execution order."""
    heads = (
        Column("distance", "Wasserstein-1 distance between the distributions of log10 |x|, in decades", True),
        Column("PSI", "population stability index", True),
        Column("spectrum", "Wasserstein-1 distance between the spectra, as a share of Nyquist", True),
    )
    return Table(
        "What changed, in execution order",
        (Column("layer"), *heads, Column("what changed")),
        tuple(
            Row(
                (
                    to_printable(layer.place),
                    *map(show, (layer.distance, layer.psi, layer.spectral_distance)),
                    to_printable("; ".join(change.message for change in layer.changes)),
                ),
                layer.place,
                layer.severity or "",
            )
            for layer in layers
        ),
    )


def fact_table(caption: str, facts: Mapping[str, Any]) -> Table | None:
    """Return nested facts as rows, `versions.torch` with its value; None without any."""
    rows = [
        Row((to_printable(name), to_printable(value)[:_LONGEST_VALUE])) for name, value in _flatten(facts, "")
    ]
    return Table(caption, (Column("key"), Column("value")), tuple(rows)) if rows else None


def shape_of(entry: TensorRecord) -> str:
    """Return `8×12×32×32`."""
    return "×".join(map(str, entry.shape)) or "scalar"


def show(value: Value, keeps_one: bool = True, digits: int = 3) -> str:
    """Return a number as tables show it; a dash for what is undefined."""
    return UNDEFINED if value is None else format_number(value, digits, keeps_one=keeps_one)


Entries = list[TensorRecord | BlockRecord]
"""What is known of one place: a module, a block, or both."""


def layer_entries(record: CaptureRecord) -> Iterator[tuple[str, str, Entries]]:
    """Yield the place, a line and the entries of everything whose numbers a page lists one by one.

    The numbers of a block are those of the module with its place, where there is one.
    """
    blocks = {block.place: block for block in record.blocks}
    if record.input is not None:
        yield "input", _describe(record.input), [record.input]
    for module in keys.modules_in_order(record):
        block = blocks.pop(module.place, None)
        yield module.place, _describe(module), [module, *([] if block is None else [block])]
    for block in blocks.values():
        yield block.place, "block", [block]
    for place, entry in (("output", record.output), ("target", record.target)):
        if entry is not None:
            yield place, _describe(entry), [entry]


def _describe(entry: TensorRecord) -> str:
    of = f"{entry.role}, {entry.class_name}, " if isinstance(entry, ModuleRecord) else ""
    return to_printable(f"{of}{shape_of(entry)} {entry.dtype}")


def _flatten(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flatten(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    elif isinstance(value, float):
        yield name, format_number(value, digits=6)
    elif value is not None:
        yield name, str(value)
