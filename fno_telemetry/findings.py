"""What a finding is, which findings follow from which, and how they read as text.

Terminal, TensorBoard and W&B show findings by these functions alone, so that they read the same everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fno_telemetry import keys
from fno_telemetry.records import IN_VALIDATION, CaptureRecord, FrozenMapping, spell_place, spell_step
from fno_telemetry.wording import format_number, to_one_line, to_printable

Severity = Literal["note", "warning", "error"]

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the least severe to the most severe."""

STATISTIC = "findings"
"""The part before the slash in the keys of counts; the severity comes after it."""

NOTHING_FOUND = "nothing found"

NOTHING_NEW = "nothing new since an earlier step"

MODEL = "the model"
"""How a finding about the whole model names its layer."""

MOST_NAMED = 8
"""A cause names at most this many of the layers that follow from it."""

LONGEST_TEXT = 400
"""Characters of one message, advice or line of evidence in a dashboard; the report has the whole text."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem that a rule found: in which layer, on what evidence, and what to do about it.

    `layer` is the place of a module or block, "input", "output", or None for the whole model. `confirm` says
    which number would show that the advice is right, "" where none would. `follows_from` is the id of the
    finding that explains this one, None where this one is a cause.
    """

    id: str
    rule: str
    severity: Severity
    layer: str | None
    step: int | None
    report: str | None
    message: str
    evidence: FrozenMapping[Any]
    advice: str
    confirm: str = ""
    follows_from: str | None = None

    @property
    def where(self) -> str:
        """The layer by the name that the user wrote, or "the model" for a finding about the whole model."""
        return spell_place(self.layer) if self.layer else MODEL

    @property
    def when(self) -> str:
        """The step, or the report where the step is unknown, which tells findings over a series apart."""
        if self.step is None:
            return str(self.report)
        # In a series an id begins with the label of its record.
        label, _, _ = self.id.partition(":")
        step = spell_step(self.step, "epoch" if label.startswith(f"epoch{self.step}") else None)
        return f"{step} {IN_VALIDATION}" if label.endswith(".val") else step

    @property
    def what_to_do(self) -> str:
        """The advice, and what would confirm it."""
        return f"{self.advice} To confirm: {self.confirm}" if self.confirm else self.advice

    def __str__(self) -> str:
        return to_printable(f"{self.severity}: {self.where}: {self.message} ({self.rule})")


@dataclass
class Cause:
    """A finding that no other finding explains, and the findings that follow from it, directly or not."""

    finding: Finding
    consequences: list[Finding] = field(default_factory=list)

    @property
    def worst(self) -> Severity:
        """The highest severity among the cause and its consequences."""
        found: list[Severity] = [each.severity for each in (self.finding, *self.consequences)]
        return max(found, key=SEVERITIES.index)

    @property
    def follows_from(self) -> str:
        """The id of the finding in another report that explains this one; "" without."""
        explained_by = self.finding.follows_from
        return "" if explained_by is None else to_one_line(f"follows from {explained_by}", LONGEST_TEXT)

    @property
    def what_follows(self) -> str:
        """In which later records this is found again, and what else follows: the first layers by name.

        "" where nothing follows.
        """
        own = self.finding.layer
        layers = list(dict.fromkeys(each.where for each in self.consequences if each.layer != own))
        here = [each for each in self.consequences if each.layer == own]
        when = self.finding.step, self.finding.report
        again = [each for each in here if each.rule == self.finding.rule and (each.step, each.report) != when]
        in_this_layer = len(here) - len(again)
        parts = []
        if again:
            records = "a later record" if len(again) == 1 else f"{len(again)} later records, the last"
            parts.append(f"again in {records} at {again[-1].when}")
        if layers:
            count = "1 more layer follows" if len(layers) == 1 else f"{len(layers)} more layers follow"
            more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
            parts.append(f"{count} from this: {', '.join(layers[:MOST_NAMED])}{more}")
        if in_this_layer:
            count = "finding follows" if in_this_layer == 1 else "findings follow"
            parts.append(f"{in_this_layer} more {count} from this in the same layer")
        return to_one_line("; ".join(parts))


def group_by_cause(findings: Iterable[Finding]) -> list[Cause]:
    """Return the causes in the given order, each with the findings that follow from it.

    A consequence of a consequence is grouped under the first cause. A finding that follows from one that is
    missing, or that comes later, is a cause itself, so no finding is hidden.
    """
    causes: list[Cause] = []
    cause_of: dict[str, Cause] = {}
    for finding in findings:
        cause = None if finding.follows_from is None else cause_of.get(finding.follows_from)
        if cause is None:
            cause = Cause(finding)
            causes.append(cause)
        else:
            cause.consequences.append(finding)
        cause_of[finding.id] = cause
    return causes


def count_causes(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Return how many causes there are of each severity, the most severe first."""
    found = [cause.finding.severity for cause in group_by_cause(findings)]
    return {severity: found.count(severity) for severity in reversed(SEVERITIES)}


def describe_counts(findings: Iterable[Finding]) -> str:
    """Return how many causes there are, `1 error, 2 notes`, or `nothing found`."""
    found = count_causes(findings).items()
    counts = [f"{number:,} {severity}{'' if number == 1 else 's'}" for severity, number in found if number]
    return ", ".join(counts) or NOTHING_FOUND


def select_new(record: CaptureRecord) -> list[Finding]:
    """Return the findings of a record but those that follow from findings of another record of its series."""
    own = f"{record.label}:"
    return [
        finding
        for finding in record.findings or ()
        # The ids of a series begin with the label of the record.
        if finding.follows_from is None
        or finding.follows_from.startswith(own)
        or not finding.id.startswith(own)
    ]


def describe_diagnosis(record: CaptureRecord) -> str:
    """Return how many causes are new in a record; `nothing new` if it only has what was found before."""
    new = select_new(record)
    return NOTHING_NEW if record.findings and not new else describe_counts(new)


def count_causes_by_key(record: CaptureRecord) -> dict[str, int]:
    """Return the counts of causes under the keys that dashboards use; {} where nobody diagnosed.

    What follows from a finding of an earlier step is counted at that step alone.
    """
    if record.findings is None:
        return {}
    counts = count_causes(select_new(record))
    return {keys.of_stage(keys.at(STATISTIC, severity), record): count for severity, count in counts.items()}


def describe_evidence(finding: Finding) -> str:
    """Return the evidence as one line of bounded length: `rms = 0, median_before = 0.1`."""
    parts = (f"{name} = {_show(value)}" for name, value in finding.evidence.items())
    return to_one_line(", ".join(parts), LONGEST_TEXT)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value, digits=4)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_show, value)) + "]"
    return str(value)
