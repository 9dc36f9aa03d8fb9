"""Sorts symptoms by cause: what explains the others comes first, followed by its consequences."""

import math
from collections.abc import Iterator, Mapping, Sequence

from fno_telemetry.diagnosis.contract import Rule, Symptom, Topic
from fno_telemetry.findings import SEVERITIES

_Named = tuple[Rule, Symptom]

_BEFORE_LAYERS: tuple[Topic, ...] = ("input", "target", "training")


def sort_by_cause(
    symptoms: Mapping[Rule, Sequence[Symptom]],
) -> Iterator[tuple[Rule, Symptom, Symptom | None]]:
    """Yield each symptom with its rule and its cause, None where it is a cause itself.

    Causes come by the highest severity of what they explain, then by execution order; each is followed by
    its consequences. A symptom explains those later in the forward whose rule its `explains` covers. Notes
    explain nothing. Of two symptoms at one place, the one of the earlier rule of `symptoms` comes first.
    """
    ranks = {rule: rank for rank, rule in enumerate(symptoms)}
    named = [(rule, symptom) for rule, found in symptoms.items() for symptom in found]
    ordered = sorted(named, key=lambda pair: _position(pair[0], pair[1], ranks))
    consequences: dict[int, list[_Named]] = {}
    for index, pair in enumerate(ordered):
        cause = next((root for root in consequences if _explains(ordered[root][1], pair[0])), None)
        if cause is None:
            consequences[index] = []
        else:
            consequences[cause].append(pair)

    def worst(root: int) -> int:
        return max(SEVERITIES.index(one.severity) for _, one in (ordered[root], *consequences[root]))

    # Sorting keeps the execution order of causes that are equally severe.
    for root in sorted(consequences, key=lambda root: -worst(root)):
        yield *ordered[root], None
        for pair in consequences[root]:
            yield *pair, ordered[root][1]


def _position(rule: Rule, symptom: Symptom, ranks: Mapping[Rule, int]) -> tuple[int, float, int]:
    """Return the position of a symptom in the order in which causes come.

    The input comes first, then the target and the training, and what a rule over a series found: the step
    explains what is seen at it. Then comes the forward, and then the backward, in which the last layer of the
    forward comes first.
    """
    if rule.about in _BEFORE_LAYERS:
        return (0, float(_BEFORE_LAYERS.index(rule.about)), ranks[rule])
    if symptom.record is not None:
        return (0, math.inf, ranks[rule])
    position = math.inf if symptom.place is None else symptom.place.position
    backward = rule.about == "gradients"
    return (2, -position, ranks[rule]) if backward else (1, position, ranks[rule])


def _explains(cause: Symptom, rule: Rule) -> bool:
    return cause.severity != "note" and cause.explains.cover(rule)
