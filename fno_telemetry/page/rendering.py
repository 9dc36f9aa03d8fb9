"""The page of a record, of a series or of a comparison, as text."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from fno_telemetry.comparison import Comparison, LayerChange
from fno_telemetry.errors import MissingExtra, OptionError
from fno_telemetry.findings import (
    SEVERITIES,
    Cause,
    Finding,
    describe_counts,
    group_by_cause,
    select_new,
)
from fno_telemetry.page.shown_causes import ShownCause, show_cause
from fno_telemetry.page.tables import (
    Table,
    band_table,
    block_table,
    change_table,
    fact_table,
    layer_entries,
    module_table,
    number_table,
)
from fno_telemetry.record_text import list_facts
from fno_telemetry.records import CaptureRecord, require_records
from fno_telemetry.version import __version__
from fno_telemetry.wording import to_one_line, to_printable

if TYPE_CHECKING:
    from fno_telemetry.pictures import Picture, Pictures

MOST_LISTED = 100
"""Layers whose numbers are all listed; of more, those with a role and those with findings come first."""

MOST_AT_ONCE = 5
"""Findings that are seen at once; the others unfold."""

MOST_CAUSES = 50
MOST_CHANGES = 200
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {script}; "
    "base-uri 'none'; form-action 'none'"
)
NEEDED = "A page needs jinja2 and matplotlib: pip install 'fno-telemetry[html]'."


@dataclass(frozen=True)
class Section:
    """A part of the page with its pictures and tables; `name` is its anchor, `of` the end of its title."""

    name: str
    short: str
    of: str = ""
    text: str = ""
    pictures: Sequence["Picture"] = ()
    tables: Sequence[Table] = ()

    @property
    def title(self) -> str:
        """The heading."""
        return f"{self.short}{self.of}"


@dataclass(frozen=True)
class LayerNumbers:
    """All numbers of one layer, and its anchor."""

    anchor: str
    name: str
    line: str
    table: Table


@dataclass(frozen=True)
class _Page:
    """Everything that the template shows."""

    title: str
    heading: str
    facts: Sequence[str]
    verdict: str
    level: str
    causes: Sequence[ShownCause]
    more_causes: Sequence[ShownCause]
    causes_left_out: int
    is_diagnosed: bool
    skipped: Sequence[str]
    sections: Sequence[Section]
    layers: Sequence[LayerNumbers]
    layers_left_out: int
    notes: Sequence[str]
    provenance: Sequence[Table]
    anchors: dict[str, str] = field(default_factory=dict)


def render_page(
    records: Sequence[CaptureRecord],
    findings: Iterable[Finding] | None = None,
    comparison: Comparison | None = None,
    skipped: Sequence[str] = (),
    names: Sequence[str] | None = None,
    last: CaptureRecord | None = None,
) -> str:
    """Return one page of HTML that loads nothing: of a record, or of several in the order of their steps.

    `findings` are those of a diagnosis; without them, and without a comparison, those that the records have.
    `comparison` is that of these records. `skipped` are lines about what could not be judged. `names` are
    what the records are called, by default their steps. `last` is the last record with all of its numbers,
    where the records have those alone that are shown over the steps. The same arguments give the same text.

    Raises:
        OptionError: there is no record.
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    require_records("render_page", records)
    if not records:
        raise OptionError("a page needs a record; got none")
    page = _collect(records, findings, comparison, skipped, names, last or records[-1])
    script, style = (_read(name) for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = _POLICY.format(script=f"'sha256-{digest}'")
    return str(
        _template().render(
            page=page,
            script=script,
            style=style,
            policy=policy,
            version=__version__,
            rules=_rules_of_themes(),
        )
    )


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtra(NEEDED) from error
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    # Whatever a report holds, a reader sees each character; texts of ours are marked as safe.
    environment.finalize = lambda value: to_printable(value) if type(value) is str else value
    environment.filters["with_code"] = _mark_code
    return environment.from_string(_read("page.html.jinja"))


def _mark_code(text: str) -> Any:
    """Return a text with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = to_printable(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    marked = (
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )
    return Markup("").join(marked)


def _rules_of_themes() -> str:
    from fno_telemetry.pictures.themes import style_rules

    return style_rules(":root")


def _read(name: str) -> str:
    return (resources.files("fno_telemetry.page") / "templates" / name).read_text(encoding="utf-8")


def _collect(
    records: Sequence[CaptureRecord],
    findings: Iterable[Finding] | None,
    comparison: Comparison | None,
    skipped: Sequence[str],
    names: Sequence[str] | None,
    last: CaptureRecord,
) -> _Page:
    given = None if findings is None else tuple(findings)
    # A comparison is about changes; whose findings these are, of two records, would not be seen.
    found = given if given is not None or comparison is not None else _own_findings(records)
    if given is not None:
        last = replace(last, findings=_findings_at(records, given))
    causes = group_by_cause(found or ())
    verdict, level = _judge(found, comparison, causes)
    listed, left_out = _list_layers(last, causes)
    # What is severe is read first; the pictures are to come after it on the same screen, or the next.
    at_once = [cause for cause in causes if cause.worst != "note"][:MOST_AT_ONCE]
    more = [cause for cause in causes[:MOST_CAUSES] if cause not in at_once]
    heading = to_printable(str(last.summary.get("architecture") or "model"))
    of = last.spelled_step or ""
    if len(records) > 1:
        first = records[0].spelled_step
        of = f"{len(records)} records" + (f", {first} to {of}" if first and of and first != of else "")
    return _Page(
        title=f"{heading}: {of}" if of else heading,
        heading=heading,
        facts=[to_printable(line) for line in ([of] if len(records) > 1 else []) + list_facts(last)],
        verdict=verdict,
        level=level,
        causes=[show_cause(cause, len(records) > 1) for cause in at_once],
        more_causes=[show_cause(cause, len(records) > 1) for cause in more],
        causes_left_out=max(0, len(causes) - MOST_CAUSES),
        is_diagnosed=found is not None,
        skipped=[to_one_line(line) for line in skipped],
        sections=_sections(records, last, found, comparison, names),
        layers=listed,
        layers_left_out=left_out,
        notes=_notes(last),
        provenance=[
            table
            for table in (fact_table("Summary", last.summary), fact_table("Provenance", last.provenance))
            if table is not None
        ],
        anchors={layer.name: layer.anchor for layer in listed},
    )


def _own_findings(records: Sequence[CaptureRecord]) -> tuple[Finding, ...] | None:
    """Return the findings that the records have, the worst causes first; None where none was diagnosed."""
    if all(record.findings is None for record in records):
        return None
    if len(records) == 1:
        return records[0].findings
    found = [finding for record in records for finding in select_new(record)]
    # By step alone, what every training begins with would come before what broke it.
    causes = sorted(group_by_cause(found), key=lambda cause: -SEVERITIES.index(cause.worst))
    return tuple(one for cause in causes for one in (cause.finding, *cause.consequences))


def _findings_at(records: Sequence[CaptureRecord], findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings that are about the last record, or about the series as a whole."""
    last = records[-1]
    return tuple(finding for finding in findings if len(records) == 1 or finding.step in (last.step, None))


def _judge(
    found: Sequence[Finding] | None, comparison: Comparison | None, causes: Sequence[Cause]
) -> tuple[str, str]:
    """Return the verdict in words, and as what it is shown: error, warning, note, or good."""
    if comparison is not None:
        return to_one_line(comparison.verdict), comparison.severity or "good"
    if found is None:
        return "not diagnosed", "none"
    for level in ("error", "warning"):
        if any(cause.worst == level for cause in causes):
            return describe_counts(found), level
    return describe_counts(found), "note" if causes else "good"


def _sections(
    records: Sequence[CaptureRecord],
    last: CaptureRecord,
    found: Sequence[Finding] | None,
    comparison: Comparison | None,
    names: Sequence[str] | None,
) -> list[Section]:
    from fno_telemetry import pictures

    drawn = pictures.pictures_of(last)
    sections = []
    if comparison is not None:
        sections.append(_changes(records, comparison, names))
    if len(records) > 1 and (comparison is None or comparison.series is not None):
        steps = pictures.pictures_of_series(records, found)
        sections.append(Section("steps", "Over the steps", pictures=steps))
    of = f" of {last.spelled_step}" if len(records) > 1 and last.spelled_step else ""
    accuracy = last.accuracy
    tables = [] if accuracy is None else [replace(number_table(last, accuracy), caption="Accuracy")]
    if accuracy is not None and accuracy.bands is not None:
        tables.append(band_table(accuracy.bands))
    blocks = block_table(last)
    sections += [
        Section("profile", "Profile by depth", of, pictures=_named(drawn, "sizes", "channels")),
        Section(
            "blocks",
            "Blocks",
            of,
            pictures=_named(drawn, "branches"),
            tables=[] if blocks is None else [blocks],
        ),
        Section("spectra", "Spectra", of, pictures=_named(drawn, "spectrum", "values", "modes")),
        Section("accuracy", "Accuracy", of, pictures=_named(drawn, "accuracy"), tables=tables),
        Section("layers", "Layers", of, tables=[module_table(last)]),
    ]
    return [section for section in sections if section.pictures or section.tables or section.text]


def _changes(
    records: Sequence[CaptureRecord], comparison: Comparison, names: Sequence[str] | None
) -> Section:
    """Return what a comparison found, and the pictures of the two records that it is about."""
    from fno_telemetry import pictures

    steps = [record.step for record in records]
    after = len(records) - 1
    before = 0
    if comparison.break_step is not None and comparison.break_step in steps[1:]:
        after = steps.index(comparison.break_step, 1)
        before = after - 1
    called = names or [record.spelled_step or record.label for record in records]
    pair = _tell_apart(str(called[before]), str(called[after]))
    if pair[0] == pair[1]:
        pair = ("before", "after")
    layers = [
        layer
        for layer in (*comparison.modules, *comparison.blocks)
        if layer.differs and (layer.same_as is None or layer.changes)
    ]
    text = [_as_sentence(change.message) for change in comparison.accuracy]
    text += [_as_sentence(note) for note in comparison.notes]
    if comparison.first_diverging is not None:
        text.append(f"The first layer that differs is {comparison.first_diverging}.")
    for what, places in (("Added", comparison.added), ("Removed", comparison.removed)):
        if places:
            text.append(f"{what}: {', '.join(places)}.")
    text += [
        f"In {finding.runs} of {finding.of} runs {finding.statistic} of {finding.layer} is worse."
        for finding in comparison.group
    ]
    return Section(
        "changes",
        "What changed",
        text=to_printable(" ".join(text)),
        pictures=pictures.pictures_of_pair(records[before], records[after], pair),
        tables=[change_table(_worst_first(layers))] if layers else [],
    )


def _tell_apart(first: str, second: str) -> tuple[str, str]:
    """Return the folders and files of two paths without those that both begin and end with."""
    one, other = first.split("/"), second.split("/")
    for end in (0, -1):
        while len(one) > 1 and len(other) > 1 and one[end] == other[end]:
            del one[end], other[end]
    return "/".join(one), "/".join(other)


def _as_sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _worst_first(layers: Sequence[LayerChange]) -> list[LayerChange]:
    """Return the layers in their order; of more than MOST_CHANGES, those that changed most."""
    if len(layers) <= MOST_CHANGES:
        return [*layers]
    levels = ("error", "warning", "note", None)
    ranked = sorted(layers, key=lambda layer: (levels.index(layer.severity), -(layer.distance or 0)))
    kept = {id(layer) for layer in ranked[:MOST_CHANGES]}
    return [layer for layer in layers if id(layer) in kept]


def _named(drawn: "Pictures", *names: str) -> list["Picture"]:
    return [picture for name in names for picture in drawn if picture.name == name]


def _list_layers(record: CaptureRecord, causes: Sequence[Cause]) -> tuple[list[LayerNumbers], int]:
    """Return the layers whose numbers are all listed, in order, and how many others there are."""
    entries = [*layer_entries(record)]
    if len(entries) > MOST_LISTED:
        found = {each.layer for cause in causes for each in (cause.finding, *cause.consequences)}

        def rank(index: int) -> tuple[int, int]:
            place, _, [entry, *_] = entries[index]
            has_role = getattr(entry, "role", "block") not in ("other", "activation", "norm")
            return (0 if place in found else 1 if has_role else 2, index)

        kept = sorted(sorted(range(len(entries)), key=rank)[:MOST_LISTED])
    else:
        kept = [*range(len(entries))]
    listed = [
        LayerNumbers(f"layer-{index}", to_printable(place), line, number_table(record, *found_there))
        for index in kept
        for place, line, found_there in (entries[index],)
    ]
    return listed, len(entries) - len(listed)


def _notes(record: CaptureRecord) -> list[str]:
    """Return a line for everything that a reader should know before trusting the numbers."""
    lines = [f"Warning: {text}" for text in record.warnings]
    for what in ("not_fired", "skipped", "errors"):
        places: dict[str, list[str]] = {}
        for entry in getattr(record, what):
            places.setdefault(entry["reason"], []).append(entry["name"])
        words = what.replace("_", " ").removesuffix("s") if what == "errors" else what.replace("_", " ")
        lines += [f"{words.capitalize()}: {', '.join(names)}: {reason}" for reason, names in places.items()]
    return [to_printable(line) for line in lines]
