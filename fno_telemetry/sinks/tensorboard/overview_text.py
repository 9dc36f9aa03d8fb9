"""The text that the Text tab shows first: the verdict, where to look, and how to read on."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fno_telemetry import keys
from fno_telemetry.findings import (
    MOST_NAMED,
    SEVERITIES,
    Cause,
    Severity,
    describe_diagnosis,
    group_by_cause,
    select_new,
)
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.overview import list_layers, loss_by_key, sort_quantities
from fno_telemetry.sinks.tensorboard.markdown import cause_lines, escape, format_value
from fno_telemetry.wording import to_printable

TAG = "0_overview"
"""The page sorts texts by tag, and tags that begin with a digit come first."""

_CHARTS = "#custom_scalars&_smoothingWeight=0"
_HISTOGRAMS = "#histograms"

_IMAGES = "#images"

_ABOUT_PICTURES = (
    "Images has, once the run has ended, the profile by depth, all layers over the steps with colours that "
    "tell their depth, and a map of each number by layer and step. A click on one shows it in full size."
)


@dataclass
class Earlier:
    """What was found at the steps before, for the overview of the next one."""

    steps: dict[Severity, list[str]] = field(default_factory=dict)
    worst: tuple[Cause, str] | None = None

    def add(self, record: CaptureRecord) -> None:
        """Add a record; its notes are not kept, as a note that still holds is in the next record too."""
        when = _when(record)
        causes = group_by_cause(select_new(record))
        for severity in {cause.finding.severity for cause in causes} - {"note"}:
            self.steps.setdefault(severity, []).append(when)
        found = _find_worst(causes)
        if found is not None and found.finding.severity != "note":
            before = self.worst
            if before is None or _severity(found) > _severity(before[0]):
                self.worst = (found, when)


def overview_text(
    record: CaptureRecord, earlier: Earlier, folder: Path | None = None, has_pictures: bool = False
) -> str:
    """Return the overview of a record as Markdown; `folder` is that of the reports, None if it is unknown."""
    parts = [_verdict(record), *_earlier_steps(earlier), *_worst_finding(record, earlier)]
    parts += [
        f"{_links(has_pictures)} {_what_is_below(record)}",
        f"{_command(folder, 'view', '--html page.html')} writes one page with all of this, which opens in "
        f"any browser.{' DIR is the folder of the reports.' if folder is None else ''}",
        *_accuracy(record),
        *_non_finite(record),
        *_extremes(record),
        _how_to_read_on(folder, has_pictures),
    ]
    return "\n\n".join(parts)


def _verdict(record: CaptureRecord) -> str:
    when = escape(_when(record))
    if record.findings is None:
        how = "Capture with `--diagnose`" if record.stage is None else "Watch with `diagnose=True`"
        return (
            f"**{when}: not diagnosed.** {how}, or run `fno-telemetry diagnose` with the "
            "folder of the reports."
        )
    return f"**{when}: {describe_diagnosis(record)}**"


def _links(has_pictures: bool) -> str:
    parts = [f"[the low frequencies and branch shares of all layers]({_CHARTS})"]
    parts += [f"[pictures by depth and step]({_IMAGES})"] if has_pictures else []
    return f"Open {', '.join(parts)}{',' if has_pictures else ''} or [histograms]({_HISTOGRAMS})."


def _command(folder: Path | None, command: str, options: str = "") -> str:
    """Return a command line; not in backticks, in which an escaped character is shown as its number."""
    where = "DIR" if folder is None else escape(shlex.quote(to_printable(str(folder))))
    return f"<code>{f'fno-telemetry {command} {where} {options}'.rstrip()}</code>"


def _how_to_read_on(folder: Path | None, has_pictures: bool) -> str:
    lines = [
        "Custom Scalars has a chart for each number, with all layers over the steps. If lines leave the "
        "frame of a chart, untick *Ignore outliers in chart scaling* there.",
        *([_ABOUT_PICTURES] if has_pictures else []),
        "Histograms has the values of each layer over the steps: `histogram` between their quantiles, "
        "`log_histogram` over log10 of their magnitude.",
        f"{_command(folder, 'view')} and {_command(folder, 'diagnose')} show every number and finding.",
    ]
    return "\n".join(["How to read on:", "", *(f"- {line}" for line in lines)])


def _what_is_below(record: CaptureRecord) -> str:
    if record.findings is None:
        return "Below this text is the `report`, a table of the layers."
    return "Below this text are all `findings`, and the `report`, a table of the layers."


def _earlier_steps(earlier: Earlier) -> Iterator[str]:
    """Yield the earlier steps that have an error or a warning."""
    parts = [
        f"{severity} at {_name_some(earlier.steps[severity])}"
        for severity in reversed(SEVERITIES)
        if severity in earlier.steps
    ]
    if parts:
        yield f"Before that: {'; '.join(parts)}."


def _worst_finding(record: CaptureRecord, earlier: Earlier) -> Iterator[str]:
    """Yield the finding to read first: the most severe one, of several errors or warnings the earliest."""
    now = _find_worst(group_by_cause(record.findings or ()))
    before = earlier.worst
    if before is not None and (now is None or _severity(before[0]) >= _severity(now)):
        cause, when = before
        yield "\n".join(cause_lines(cause, f" at {escape(when)}"))
    elif now is not None:
        yield "\n".join(cause_lines(now))


def _accuracy(record: CaptureRecord) -> Iterator[str]:
    """Yield the loss and how the output compares with the target, where they are known."""
    stats = {} if record.accuracy is None else record.accuracy.stats
    found = [("loss", value) for value in loss_by_key(record).values()]
    found += [
        (quantity.title, value)
        for quantity in sort_quantities(stats, record)
        if keys.is_defined(value := stats[quantity.name])
    ]
    if found:
        text = ", ".join(f"{escape(title)} {escape(format_value(value))}" for title, value in found)
        yield f"{text[0].upper()}{text[1:]}."


def _non_finite(record: CaptureRecord) -> Iterator[str]:
    """Yield which layers have values that are not finite."""
    places = [
        module.place
        for module in keys.modules_in_order(record)
        if module.stats.get("nan_count") or module.stats.get("inf_count")
    ]
    if places:
        yield f"NaN or infinity in {_name_some(places)}."


def _extremes(record: CaptureRecord) -> Iterator[str]:
    """Yield a list of the layers at the ends of each number, at the worse end alone where there is one."""
    layers = [layer for layer in list_layers(record) if layer.role != "input"]
    lines = []
    for quantity in sort_quantities({name for layer in layers for name in layer.stats}, record):
        values = [(layer.stats.get(quantity.name), layer.name) for layer in layers]
        defined = [(value, name) for value, name in values if keys.is_defined(value)]
        if quantity.compared and (ends := _ends(quantity, defined)):
            name = f"{escape(quantity.name)} ({escape(quantity.title)})"
            lines.append(f"- {name}: {', '.join(ends)}")
    if lines:
        yield "\n".join(["The layers with the lowest and the highest values:", "", *lines])


def _ends(quantity: Quantity, values: Sequence[tuple[int | float, str]]) -> list[str]:
    """Return the layers with the lowest and the highest value; [] if all values are the same."""
    lowest, highest = min(values, key=_value, default=None), max(values, key=_value, default=None)
    if lowest is None or highest is None or lowest[0] == highest[0]:
        return []
    ends = [("lowest", lowest), ("highest", highest)]
    shown = {"down": ends[:1], "up": ends[1:]}.get(quantity.worse, ends)
    return [f"{which} {escape(format_value(value))} in {escape(name)}" for which, (value, name) in shown]


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(map(escape, names[:MOST_NAMED]))}{more}"


def _when(record: CaptureRecord) -> str:
    return record.spelled_step or "step unknown"


def _find_worst(causes: Sequence[Cause]) -> Cause | None:
    """Return the first of the most severe causes."""
    return max(causes, key=_severity, default=None)


def _value(found: tuple[int | float, str]) -> int | float:
    return found[0]


def _severity(cause: Cause) -> int:
    return SEVERITIES.index(cause.finding.severity)
