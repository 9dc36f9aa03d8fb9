"""Findings as a page shows them: a cause with its evidence and advice, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fno_telemetry.findings import Cause, describe_evidence
from fno_telemetry.wording import to_one_line, to_printable

MOST_CONSEQUENCES = 30
"""Findings that follow from one cause are listed up to here; of more, their number is."""


@dataclass(frozen=True)
class ShownCause:
    """A finding as the page shows it; `follow` is how many follow from it, `follows` a line for each."""

    severity: str
    where: str
    message: str
    rule: str
    when: str
    evidence: str
    advice: str
    place: str | None
    follows: Sequence[str]
    follow: int
    note: str = ""


def show_cause(cause: Cause, several: bool) -> ShownCause:
    """Return a cause as a page shows it; with its step where there are several."""
    finding = cause.finding
    follows = [
        to_one_line(f"{each.severity}: {each.where}{f', {each.when}' if several else ''}: {each.message}")
        for each in cause.consequences
    ]
    if len(follows) > MOST_CONSEQUENCES:
        follows = [*follows[:MOST_CONSEQUENCES], f"and {len(follows) - MOST_CONSEQUENCES} more"]
    return ShownCause(
        severity=finding.severity,
        where=to_one_line(finding.where),
        message=to_one_line(finding.message),
        rule=to_one_line(finding.rule),
        when=to_one_line(finding.when) if several else "",
        evidence=describe_evidence(finding),
        advice=to_one_line(finding.what_to_do),
        place=None if finding.layer is None else to_printable(finding.layer),
        follows=follows,
        follow=len(cause.consequences),
        note=cause.follows_from,
    )
