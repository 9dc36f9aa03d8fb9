"""Lines about a record, and numbers and names in them, for the terminal."""

from collections.abc import Iterator, Sequence

from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.quantities import ORDER, look_up
from fno_telemetry.wording import format_number, join_names, to_printable

_NAMES_SHOWN = 3


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


def shown(text: str, style: str = "") -> Text:
    """Return one line of text that may come from a file, a model or another package."""
    return Text(to_printable(text), style=style)


def format_count(number: int, noun: str) -> str:
    """Return `1 sample`, `8 samples`, `656,002 parameters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    return join_names(names, _NAMES_SHOWN)


def number(value: float | None, keeps_one: bool = True) -> str:
    """Return a number as `format_number` shows it; a dash for what is undefined."""
    return "–" if value is None else format_number(value, keeps_one=keeps_one)


def _weights(weights: str | None) -> str:
    if weights is None:
        return "weights as given"
    if weights.startswith("untrained"):
        return "untrained weights" + weights.removeprefix("untrained")
    return "weights from the checkpoint" if weights == "checkpoint" else f"weights {weights}"
