"""Orders what was found by cause: what explains the rest comes first, with its consequences behind it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fno_telemetry.diagnosis.contract import OF_GRADIENTS, Symptom
from fno_telemetry.findings import SEVERITIES


@dataclass(frozen=True)
class Found:
    """A symptom, the rule that found it, and its rank: of two at one site the lower comes first."""

    rule: str
    rank: int
    symptom: Symptom

    @property
    def position(self) -> tuple[int, float, int]:
        """Where it stands in the order in which causes come.

        What a rule over a series found stands before everything: the step explains what is seen at it. Then
        comes the forward, and then the backward, in which what is last in the forward comes first.
        """
        place = self.symptom.place
        position = math.inf if place is None else place.position
        if self.symptom.record is not None:
            return (0, 0.0, self.rank)
        backward = self.rule in OF_GRADIENTS
        return (2, -position, self.rank) if backward else (1, position, self.rank)


def order_by_cause(found: Sequence[Found]) -> Iterator[tuple[Found, Found | None]]:
    """Yield each with its root cause, None for a cause; causes by what they led to, then by execution order.

    A finding explains those behind it in the forward whose rule it names. Notes explain nothing.
    """
    ordered = sorted(found, key=lambda one: one.position)
    consequences: dict[int, list[Found]] = {}
    for index, one in enumerate(ordered):
        cause = next((root for root in consequences if _explains(ordered[root], one)), None)
        if cause is None:
            consequences[index] = []
        else:
            consequences[cause].append(one)

    def worst(root: int) -> int:
        return max(SEVERITIES.index(one.symptom.severity) for one in (ordered[root], *consequences[root]))

    for root in sorted(consequences, key=lambda root: (-worst(root), ordered[root].position)):
        yield ordered[root], None
        for one in consequences[root]:
            yield one, ordered[root]


def _explains(cause: Found, one: Found) -> bool:
    return cause.symptom.severity != SEVERITIES[0] and one.rule in cause.symptom.explains
