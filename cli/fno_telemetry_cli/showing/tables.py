"""Tables of a record for the terminal."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.findings import describe_diagnosis, group_by_cause, select_new
from fno_telemetry.keys import VALIDATION
from fno_telemetry.quantities import ORDER, columns, look_up
from fno_telemetry.records import BandAccuracy, place_name
from fno_telemetry.wording import format_number, format_percent, to_printable
from fno_telemetry_cli.showing.channel_lines import channel_lines
from fno_telemetry_cli.showing.columns import Column, fit

# How early these columns are dropped on a narrow terminal, as `Quantity.gives_way` says of numbers.
_SHAPE_GIVES_WAY, _ROLE_GIVES_WAY = 1, 2
_NAMES_SHOWN = 3
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
        *_training(record),
        *accuracy_line(record),
        *map(shown, channel_lines(record)),
    ]
    if record.accuracy is not None and record.accuracy.bands is not None:
        parts += [Text(), *fit(_bands(record.accuracy.bands), width)]
    parts += [Text(), *fit(_modules(record), width)]
    if record.blocks:
        parts += [Text(), *fit(_blocks(record), width)]
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
    about = (
        "" if parameters is None else format_count(parameters, "parameter"),
        # In a training the step says which weights these are.
        "" if record.stage and not summary.get("weights") else _weights(summary.get("weights")),
        record.spelled_step or "",
    )
    size_of_batches = summary.get("batch_size")
    batches = "" if size_of_batches is None else f" in batches of {size_of_batches}"
    run = "" if samples is None else f"; {format_count(samples, 'sample')}{batches}"
    loss = "" if summary.get("loss") is None else f"; loss {format_number(summary['loss'], digits=4)}"
    light = "; light budget" if record.provenance.get("budget") == "light" else ""
    found = record.resolution
    resampled = "" if found is None else f"; fields at {found.factor:g} times the resolution"
    of_what = f"{summary.get('architecture', 'model')}: {', '.join(filter(None, about))}"
    text = f"{of_what}{run}{loss}{light}{resampled}"
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


def _training(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield a line of what only a training knows of its step."""
    training = record.training
    if not training:
        return
    rates = training.get("learning_rates") or ()
    parts = [f"learning rate {', '.join(map(format_number, rates))}"] if rates else []
    if (forwards := training.get("forwards")) is not None:
        parts.append(format_count(forwards, "forward"))
    if dropped := training.get("dropped"):
        parts.append(f"{format_count(dropped, 'record')} before it dropped")
    yield shown(f"{'validation' if record.stage == VALIDATION else 'training'}: {', '.join(parts)}")


def accuracy_line(record: ft.CaptureRecord) -> Iterator[Text]:
    """Yield a line that says how the output compares with the target, where one was given."""
    if record.accuracy is None:
        return
    stats, reasons = record.accuracy.stats, record.accuracy.reasons
    parts = [
        f"{quantity.title} {number(value) if value is not None else f'undefined ({reasons.get(name)})'}"
        for name, quantity in look_up(stats, record.quantities).items()
        for value in (stats[name],)
        if quantity.group != ORDER
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


def number(value: float | None, keeps_one: bool = True) -> str:
    """Return a number as `format_number` shows it; a dash for what is undefined."""
    return "–" if value is None else format_number(value, keeps_one=keeps_one)


def _weights(weights: str | None) -> str:
    if weights is None:
        return "weights as given"
    if weights.startswith("untrained"):
        return "untrained weights" + weights.removeprefix("untrained")
    return "weights from the checkpoint" if weights == "checkpoint" else f"weights {weights}"


def _modules(record: ft.CaptureRecord) -> list[Column]:
    rows: list[tuple[Text, str, ft.TensorRecord]] = []
    # Reports of earlier versions have the first input alone.
    for entered in record.inputs or ([] if record.input is None else [record.input]):
        rows.append((shown(place_name("input", 0, entered.item), "dim"), "", entered))
    for module in sorted(record.modules, key=lambda module: module.order):
        rows.append((shown(module.place), module.role, module))
    for output in record.outputs:
        rows.append((shown(place_name("output", 0, output.item), "dim"), "", output))
    if record.target is not None:
        rows.append((Text("target", style="dim"), "", record.target))
    shapes = [Text("×".join(map(str, entry.shape)) or "scalar") for _, _, entry in rows]
    return [
        Column("module", [name for name, _, _ in rows]),
        Column("role", [Text(r, style=ROLE_STYLES.get(r, "")) for _, r, _ in rows], False, _ROLE_GIVES_WAY),
        Column("shape", shapes, False, _SHAPE_GIVES_WAY),
        *_numbers([entry for _, _, entry in rows], record),
    ]


def _blocks(record: ft.CaptureRecord) -> list[Column]:
    names = [shown(block.place) for block in record.blocks]
    return [Column("block", names), *_numbers(record.blocks, record)]


def _bands(bands: BandAccuracy) -> list[Column]:
    """Return how output and target compare by octave."""
    pooled = bands.pool()
    edges = [f"{edge:g}" if edge > 1 / 2 else str(Fraction(edge)) for edge in pooled.band_edges]
    spans = ["mean", *(f"{above} to {below}" for above, below in pairwise(edges))]
    total = sum(pooled.target)
    shares = [format_percent(energy / total) if total else number(None) for energy in pooled.target]
    rows = (pooled.band_error, pooled.spectrum_ratio, pooled.band_coherence)
    headings = ("relative\nerror", "output\n/ target", "coherence")
    return [
        Column("cycles per\ngrid point", [Text(span) for span in spans]),
        Column("energy of\nthe target", [Text(share) for share in shares], True),
        *(
            Column(heading, [Text(number(value)) for value in row], True)
            for heading, row in zip(headings, rows, strict=True)
        ),
    ]


def _numbers(
    entries: Sequence[ft.TensorRecord | ft.BlockRecord], record: ft.CaptureRecord
) -> Iterator[Column]:
    for quantity in columns([entry.stats for entry in entries], record.quantities):
        cells = [Text(number(entry.stats.get(quantity.name), quantity.keeps_one)) for entry in entries]
        yield Column(quantity.column, cells, True, quantity.gives_way)
