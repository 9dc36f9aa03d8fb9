"""The columns of the tables of a record: its modules, its blocks, and its bands of frequency."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.quantities import Quantity, columns, look_up
from fno_telemetry.records import BandAccuracy, Value
from fno_telemetry.wording import format_percent
from fno_telemetry_cli.showing.chosen_layers import Layers
from fno_telemetry_cli.showing.columns import Column
from fno_telemetry_cli.showing.tables import number, shown

# How early these columns are dropped on a narrow terminal, as `Quantity.gives_way` says of numbers.
_SHAPE_GIVES_WAY, _ROLE_GIVES_WAY = 1, 2
_NO_STATS: Mapping[str, Value] = {}
_STAYS = ("rms", "low_frequency_fraction")  # in an overview, however narrow
_MOST_GIVES_WAY = 3  # of the numbers of an overview, so that there is room for bars
AROUND = ("lifting", "block", "projection")
"""The roles of blocks and of what is before and after them, in that order."""

_NONFINITE = ("nan_count", "inf_count")
_STYLES = {"error": "bold red", "warning": "yellow"}


def module_columns(record: ft.CaptureRecord, layers: Layers) -> list[Column]:
    """Return a table of what goes in, modules, what comes out, and the target."""
    severities = _severities(record)
    rows: list[tuple[Text, str, ft.TensorRecord]] = [
        *((shown(name, _style(name, end, severities) or "dim"), "", end) for name, end in layers.before),
        *(
            (
                shown(module.place, _style(module.place, module, severities)),
                module.role,
                module,
            )
            for module in layers.modules
        ),
        *((shown(name, _style(name, end, severities) or "dim"), "", end) for name, end in layers.after),
    ]
    shapes = [Text("×".join(map(str, entry.shape)) or "scalar") for _, _, entry in rows]
    return [
        Column("module", [name for name, _, _ in rows]),
        Column("role", [Text(role) for _, role, _ in rows], False, _ROLE_GIVES_WAY),
        Column("shape", shapes, False, _SHAPE_GIVES_WAY),
        *_numbers([entry for _, _, entry in rows], record, layers.statistic),
    ]


def block_columns(record: ft.CaptureRecord, layers: Layers) -> list[Column]:
    """Return a table of blocks."""
    severities = _severities(record)
    names = [shown(block.place, _STYLES.get(severities.get(block.place, ""), "")) for block in layers.blocks]
    return [Column("block", names), *_numbers(layers.blocks, record, layers.statistic)]


def overview_columns(record: ft.CaptureRecord, layers: Layers) -> list[Column]:
    """Return the overview: a row for each block, and for the layers before the first and after the last one.

    A block has the numbers of its output and of its branches.
    """
    severities = _severities(record)
    blocks = {block.place: block.stats for block in layers.blocks}
    first, last = (
        [
            (each.place, each.stats, _style(each.place, each, severities))
            for each in layers.modules
            if each.role in roles
        ]
        for roles in (AROUND[:-1], AROUND[-1:])
    )
    of_modules = {place for place, *_ in (*first, *last)}
    alone = [(place, _NO_STATS, "") for place in blocks if place not in of_modules]
    before, after = (
        [(name, end.stats, _style(name, end, severities) or "dim") for name, end in ends]
        for ends in (layers.before, layers.after)
    )
    rows = [*before, *first, *alone, *last, *after]
    all_stats = [{**stats, **blocks.get(place, {})} for place, stats, _ in rows]
    quantities = [
        each
        for each in columns(all_stats, record.quantities)
        if each.in_overview and each.gives_way < _MOST_GIVES_WAY
    ]
    return [
        Column("layer", [shown(place, style) for place, _, style in rows]),
        *(_number_column(each, all_stats, int(each.name not in _STAYS)) for each in quantities),
    ]


def band_columns(bands: BandAccuracy) -> list[Column]:
    """Return how output and target compare by octave."""
    pooled = bands.pool()
    edges = [f"{edge:g}" if edge > 1 / 2 else str(Fraction(edge)) for edge in pooled.band_edges]
    spans = ["mean", *(f"{above} to {below}" for above, below in pairwise(edges))]
    total = sum(pooled.target)
    shares = [energy / total if total else None for energy in pooled.target]
    percents = [Text(number(None) if share is None else format_percent(share)) for share in shares]
    rows = (pooled.band_error, pooled.spectrum_ratio, pooled.band_coherence)
    headings = ("relative\nerror", "output\n/ target", "coherence")
    return [
        Column("cycles per\ngrid point", [Text(span) for span in spans]),
        Column("energy of\nthe target", percents, True, shares=shares),
        *(
            Column(heading, [Text(number(value)) for value in row], True)
            for heading, row in zip(headings, rows, strict=True)
        ),
    ]


def _numbers(
    entries: Sequence[ft.TensorRecord | ft.BlockRecord], record: ft.CaptureRecord, sorted_by: str | None
) -> Iterator[Column]:
    """Yield a column for each number of tables; first the one by which the rows are sorted."""
    all_stats = [entry.stats for entry in entries]
    quantities = columns(all_stats, record.quantities)
    if sorted_by is not None and any(sorted_by in stats for stats in all_stats):
        [first] = look_up([sorted_by], record.quantities).values()
        yield _number_column(first, all_stats, gives_way=0)
        quantities = [quantity for quantity in quantities if quantity.name != sorted_by]
    for quantity in quantities:
        yield _number_column(quantity, all_stats, quantity.gives_way)


def _number_column(quantity: Quantity, all_stats: Sequence[Mapping[str, Value]], gives_way: int) -> Column:
    values = [stats.get(quantity.name) for stats in all_stats]
    return Column(
        quantity.column if quantity.in_tables else quantity.name,
        [
            Text(number(value, quantity.keeps_one) if quantity.name in stats else "")
            for value, stats in zip(values, all_stats, strict=True)
        ],
        True,
        gives_way,
        values if quantity.keeps_one else (),
        quantity.worse == "up",
    )


def _severities(record: ft.CaptureRecord) -> dict[str, str]:
    """Return the worst severity that was found in each layer, by its place."""
    found: dict[str, str] = {}
    for finding in sorted(record.findings or (), key=lambda each: SEVERITIES.index(each.severity)):
        if finding.layer is not None:
            found[finding.layer] = finding.severity
    return found


def _style(place: str, entry: ft.TensorRecord, severities: dict[str, str]) -> str:
    if any(entry.stats.get(name) for name in _NONFINITE):
        return _STYLES["error"]
    return _STYLES.get(severities.get(place, ""), "")
