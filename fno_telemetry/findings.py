"""What sinks show of a record's findings: how many, which follow from which, and all of it as text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord, FrozenMapping

STATISTIC = "findings"
"""What counts are called in front of the slash, with the severity behind it."""

SEVERITIES = ("error", "warning", "note")

NOTHING = "nothing found"

MODEL = "the model"
"""The layer of a finding on the whole model."""

MOST_NAMED = 8
"""A cause names as many of the layers that follow from it."""

LONGEST_TEXT = 400
"""Characters of one message, advice or line of evidence; the whole is in the report."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a rule found: where, what it was read off, and what to do about it.

    `severity` is "note", "warning" or "error". `layer` is a module's or block's place, "input", "output", or
    None for the whole model. `follows_from` is the id of the finding that explains this one.
    """

    id: str
    rule: str
    severity: str
    layer: str | None
    step: int | None
    report: str | None
    message: str
    evidence: FrozenMapping[Any]
    advice: str
    follows_from: str | None = None

    def __str__(self) -> str:
        where = self.layer or "the model"
        return f"{self.severity}: {where}: {self.message} ({self.rule})"


@dataclass
class Cause:
    """A finding that no other one explains, and those that follow from it, directly or not."""

    finding: Finding
    consequences: list[Finding] = field(default_factory=list)

    @property
    def what_follows(self) -> str:
        """Say how many other layers follow and which, a bounded number of them; "" where nothing does."""
        own = self.finding.layer
        layers = list(dict.fromkeys(each.layer or MODEL for each in self.consequences if each.layer != own))
        here = sum(each.layer == own for each in self.consequences)
        parts = []
        if layers:
            named = ", ".join(layers[:MOST_NAMED])
            more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
            count = "1 later layer follows" if len(layers) == 1 else f"{len(layers)} later layers follow"
            parts.append(f"{count} from this: {named}{more}")
        if here:
            parts.append(f"{here} more of the same layer {'follows' if here == 1 else 'follow'} from this")
        return "; ".join(parts)


def causes(record: CaptureRecord) -> list[Cause]:
    """Return the causes in the record's order, each with what follows from it.

    A finding whose cause does not stand before it is a cause itself: nothing that was found is hidden.
    """
    found: list[Cause] = []
    explained: dict[str, Cause] = {}
    for finding in record.findings or ():
        cause = None if finding.follows_from is None else explained.get(finding.follows_from)
        if cause is None:
            cause = Cause(finding)
            found.append(cause)
        else:
            cause.consequences.append(finding)
        explained[finding.id] = cause
    return found


def counts(record: CaptureRecord) -> dict[str, int]:
    """Return how many causes there are of each severity, by their keys; {} where nobody looked."""
    if record.findings is None:
        return {}
    found = [cause.finding.severity for cause in causes(record)]
    return {keys.at(STATISTIC, severity): found.count(severity) for severity in SEVERITIES}


def evidence(finding: Finding) -> str:
    """Return the evidence in one line, `name = value`, of bounded length."""
    return shorten(", ".join(f"{name} = {_shown(value)}" for name, value in finding.evidence.items()))


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return the text in a line of bounded length that every dashboard can store."""
    # A name from a file may hold half of a surrogate pair, which is no character.
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
