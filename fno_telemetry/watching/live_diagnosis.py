"""Judges the records of a training loop as they come, each against the run so far."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fno_telemetry.diagnosis.contract import Rule
from fno_telemetry.diagnosis.findings import OF_LEARNING, OF_STARTS, diagnose
from fno_telemetry.diagnosis.installed_rules import load_rules
from fno_telemetry.findings import LONGEST_TEXT, SEVERITIES, Finding, group_by_cause
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import to_one_line

_log = logging.getLogger("fno_telemetry")

MOST_KEPT = 20
"""Records, besides the first one, that a new one is compared with. All of them are judged again each time."""

LASTING = 8
"""Records in a row that have to miss the target in the same way before that is said: all begin with it."""

_LEAST = SEVERITIES.index("warning")

_Problem = tuple[str, str | None]
"""What makes two findings one problem: the rule and the layer."""


class LiveDiagnosis:
    """Adds to each record what is found in it, and logs each new warning or error of a run once.

    The rules for one record have the first record of its stage as their baseline; those over a series have
    the first and the latest records of that stage. What they find at an earlier step is in the record with
    which it was noticed, once. What the record before has too follows from that, as in `diagnose` of a
    series, so that dashboards count a fault at the step at which it appeared.
    """

    def __init__(self) -> None:
        self._stages: dict[str | None, _Stage] = {}

    def judge(self, record: CaptureRecord) -> CaptureRecord:
        """Return the record with its findings; the errors are those of `diagnose`."""
        rules, _ = load_rules(None)
        stage = self._stages.setdefault(record.stage, _Stage())
        stage.go_back_to(record.step)
        earlier = stage.earlier
        found = [_name_in_series(each, record) for each in diagnose(record, baseline=stage.first)]
        if earlier:
            over_steps = [rule.name for rule in rules if rule.takes_series]
            of_series = diagnose(*earlier, record, rules=over_steps)
            found = [*(each for each in of_series if stage.is_news(each, record)), *found]
        _say(stage.select_to_say(found, rules, is_first=not earlier), record)
        before = earlier[-1].findings or () if earlier else ()
        judged = replace(record, findings=tuple(_follow_earlier(found, record, before)))
        stage.add(judged)
        return judged


@dataclass
class _Stage:
    """The records of one stage of the loop that are compared with, and what was found in them."""

    first: CaptureRecord | None = None
    latest: deque[CaptureRecord] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    noticed: set[_Problem] = field(default_factory=set)  # by rules over a series
    said: set[_Problem] = field(default_factory=set)
    lasting: dict[_Problem, int] = field(default_factory=dict)  # records in a row that have it

    @property
    def earlier(self) -> list[CaptureRecord]:
        return [] if self.first is None else [self.first, *self.latest]

    def go_back_to(self, step: int | None) -> None:
        """Forget the records of this step and of later ones, which a restart from an earlier one repeats."""
        kept = [each for each in self.earlier if step is None or each.step is None or each.step < step]
        self.first = kept[0] if kept else None
        self.latest = deque(kept[1:], maxlen=MOST_KEPT)

    def add(self, record: CaptureRecord) -> None:
        if self.first is None:
            self.first = record
        else:
            self.latest.append(record)

    def is_news(self, finding: Finding, record: CaptureRecord) -> bool:
        """Return whether a rule over a series finds this at the record's step, or for the first time."""
        is_known = _problem(finding) in self.noticed
        self.noticed.add(_problem(finding))
        return finding.step == record.step or not is_known

    def select_to_say(
        self, findings: Sequence[Finding], rules: list[Rule], is_first: bool
    ) -> list[tuple[Finding, str]]:
        """Return the causes that nobody was told of, from warnings on, each with what follows from it.

        Many networks start with zeros or at a small scale: what may be such a start is said only if the
        second record has it, too. What the output lacks of the target is said only if it lasts.
        """
        about = {rule.name: rule.about for rule in rules}
        problems = {_problem(finding) for finding in findings}
        self.lasting = {each: self.lasting.get(each, 0) + 1 for each in problems}
        news = []
        for cause in group_by_cause(findings):
            finding = cause.finding
            may_be_a_start = is_first and about.get(finding.rule) in OF_STARTS
            may_be_learned = (
                about.get(finding.rule) in OF_LEARNING and self.lasting[_problem(finding)] < LASTING
            )
            if SEVERITIES.index(finding.severity) < _LEAST or may_be_a_start or may_be_learned:
                continue
            if _problem(finding) not in self.said:
                news.append((finding, cause.what_follows))
            self.said |= {_problem(each) for each in (finding, *cause.consequences)}
        return news


def _name_in_series(finding: Finding, record: CaptureRecord) -> Finding:
    """Return a finding of one record with the ids that `diagnose` gives in a series."""
    cause = finding.follows_from
    return replace(
        finding,
        id=f"{record.label}:{finding.id}",
        follows_from=None if cause is None else f"{record.label}:{cause}",
    )


def _follow_earlier(
    findings: Sequence[Finding], record: CaptureRecord, before: Sequence[Finding]
) -> Iterator[Finding]:
    """Yield the findings; causes that the record before has too, and what follows, follow from those."""
    known = {_problem(each): each.follows_from or each.id for each in before}
    first = {
        each.id: known[_problem(each)]
        for each in findings
        if each.follows_from is None and each.step == record.step and _problem(each) in known
    }
    for each in findings:
        yield replace(each, follows_from=first.get(each.follows_from or each.id, each.follows_from))


def _say(news: list[tuple[Finding, str]], record: CaptureRecord) -> None:
    for finding, what_follows in news:
        rest = f"; {what_follows}" if what_follows else ""
        text = to_one_line(f"{finding}{rest}", LONGEST_TEXT)
        _log.warning("fno-telemetry: %s: %s", record.spelled_step, text)


def _problem(finding: Finding) -> _Problem:
    return finding.rule, finding.layer
