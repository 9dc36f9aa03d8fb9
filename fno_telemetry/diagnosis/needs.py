"""What rules need besides a record, whether it is there, and what to give where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

from fno_telemetry.diagnosis.contract import NEEDS, Need, Rule
from fno_telemetry.diagnosis.installed_rules import load_rules
from fno_telemetry.records import CaptureRecord

_MISSING = {
    "target": "no target",
    "gradients": "no gradients",
    "training": "nothing known of the training",
    "baseline": "no baseline",
    "test": "no report on test samples",
    "resolution": "no other resolution",
    "steps": "a single step",
}
_GIVE = {
    "target": "capture with `target`",
    "gradients": "capture with `loss`",
    "training": "watch the training loop, and give the history that it writes",
    "baseline": "give a report from before it broke as `baseline`",
    "test": "give a report on samples that were not trained on as `test`",
    "resolution": "capture with `also_at=2` (in Python `ft.capture_resampled`), and give both reports",
    "steps": "give reports of several steps",
}


@dataclass(frozen=True)
class Skipped:
    """The rules that were not applied, or that could judge less, because one thing was not given.

    `rules` were not applied at all. `limited` were applied without what they would have compared with.
    """

    missing: str
    give: str
    rules: tuple[str, ...]
    limited: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{_count(self.rules)} skipped"] if self.rules else []
        if self.limited:
            number = f"{len(self.limited)} more" if self.rules else _count(self.limited)
            parts.append(f"{number} judge{'s' if len(self.limited) == 1 else ''} less")
        return f"{self.missing}: {', '.join(parts)}; {self.give}"


def is_met(
    need: Need,
    record: CaptureRecord,
    baseline: CaptureRecord | None,
    test: object,
    resampled: CaptureRecord | None = None,
) -> bool:
    """Return whether a record, or what was given with it, has what a rule needs."""
    if need == "resolution":
        return record.resolution is not None or resampled is not None
    if need == "target":
        return record.accuracy is not None
    if need == "gradients":
        return any(module.stats.get("grad_norm") is not None for module in record.modules)
    if need == "training":
        return bool(record.training)
    return (baseline if need == "baseline" else test) is not None


def applies(
    rule: Rule,
    records: Sequence[CaptureRecord],
    baseline: CaptureRecord | None,
    test: object,
    resampled: CaptureRecord | None = None,
) -> bool:
    """Return whether a rule has what it needs in one of the records."""
    return all(
        any(is_met(need, record, baseline, test, resampled) for record in records) for need in rule.needs
    )


def find_skipped(
    *records: CaptureRecord,
    baseline: CaptureRecord | None = None,
    test: CaptureRecord | None = None,
    rules: Sequence[str] | None = None,
) -> tuple[Skipped, ...]:
    """Return what `diagnose`, given the same, could not judge, and what to give for it.

    A rule that lacks several things is listed under the first of them alone.
    """
    loaded, _ = load_rules(rules)
    missing: dict[str, list[str]] = {need: [] for need in (*NEEDS, "steps")}
    limited: dict[str, list[str]] = {"baseline": [], "test": []}
    for rule in loaded:
        lacks = [need for need in rule.needs if not any(is_met(need, one, baseline, test) for one in records)]
        if lacks:
            missing[lacks[0]].append(rule.name)
            continue
        if rule.takes_series and sum(record.step is not None for record in records) < 2:
            missing["steps"].append(rule.name)
        if rule.takes_baseline and baseline is None:
            limited["baseline"].append(rule.name)
        if rule.takes_test and test is None:
            limited["test"].append(rule.name)
    return tuple(
        Skipped(_MISSING[what], _GIVE[what], tuple(names), tuple(limited.get(what, ())))
        for what, names in missing.items()
        if names or limited.get(what)
    )


def _count(rules: Sequence[str]) -> str:
    return "1 rule" if len(rules) == 1 else f"{len(rules)} rules"
