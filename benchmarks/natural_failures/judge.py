"""Asks `diagnose` about every run, with what a user may give it, and says whether it was right."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch

import fno_telemetry as ft
from benchmarks.natural_failures.corpus import HARM, Made, harm_of, set_up
from benchmarks.natural_failures.expectations import CAUSES
from benchmarks.natural_failures.kinds.contract import Kind
from benchmarks.natural_failures.kinds.known import KINDS
from benchmarks.natural_failures.spikes import SpikeVerdict, judge_spike
from benchmarks.natural_failures.training import HISTORY

SETTINGS = ("report", "baseline", "history", "test")
"""One report with its target; with the healthy one as baseline; the history; with a report of the test."""

OUTER = ("input", "output", "target")


@dataclass(frozen=True)
class Verdict:
    """What one call of `diagnose` made of a failure."""

    named: bool  # a warning or error that is a cause names what is wrong
    advised: bool  # and its advice leads there
    placed: bool | None  # the first finding is where the failure is; None where no place is wrong
    silent: bool  # not one warning or error


@dataclass(frozen=True)
class Outcome:
    """A failure with its harm and verdicts; a spike with what was made of it."""

    what: str
    cause: str
    run: str
    harm: float  # test error over that of the healthy training
    needs_test: bool
    verdicts: Mapping[str, Verdict]
    spike: SpikeVerdict | None

    @property
    def counts(self) -> bool:
        """Whether it did harm."""
        return self.harm >= HARM


@dataclass(frozen=True)
class Look:
    """One look at a healthy run, and its first warning or error, "" without."""

    what: str
    run: str
    task: str
    given: str
    is_series: bool
    finding: str


@dataclass(frozen=True)
class Judgement:
    """All outcomes, and all looks at healthy runs."""

    outcomes: Sequence[Outcome]
    looks: Sequence[Look]


def judge_all(made: Sequence[Made], processes: int) -> Judgement:
    """Judge every run that has its plain one."""
    plain = {each.run: each for each in made if each.run == each.run.plain}
    pairs = [(each, plain[each.run.plain]) for each in made if each.run.plain in plain]
    with ProcessPoolExecutor(processes, initializer=partial(torch.set_num_threads, 1)) as pool:
        outcomes = list(pool.map(judge_failure, *_columns(pairs, fails=True), chunksize=4))
        looks = list(pool.map(look_at_healthy, *_columns(pairs, fails=False), chunksize=4))
    return Judgement(outcomes, [look for of_run in looks for look in of_run])


def _columns(pairs: Sequence[tuple[Made, Made]], fails: bool) -> tuple[list[Made], list[Made]]:
    chosen = [pair for pair in pairs if pair[0].run.fails == fails]
    return [each for each, _ in chosen], [plain for _, plain in chosen]


def judge_failure(made: Made, plain: Made) -> Outcome:
    """Return what `diagnose` makes of a failure in each setting."""
    kind = KINDS[made.run.what]
    _, places = set_up(made.run, made.folder.parent)
    found = dict(diagnose_in_settings(made, plain))
    return Outcome(
        kind.name,
        kind.cause,
        made.run.name,
        harm_of(made, plain),
        kind.needs_test,
        {setting: _judge(findings, kind.cause, places) for setting, findings in found.items()},
        None if kind.spike is None else _judge_spike(made, kind),
    )


def _judge_spike(made: Made, kind: Kind) -> SpikeVerdict:
    assert kind.spike is not None
    return judge_spike(made.folder / HISTORY, made.facts["losses"], kind.spike, kind.cause)


def diagnose_in_settings(made: Made, plain: Made) -> Iterator[tuple[str, tuple[ft.Finding, ...]]]:
    """Yield each setting with its findings; "history" only where something was trained.

    A failure that changes the layers has no healthy network of the same layers: then "baseline" is left out.
    """
    trained = _load(made, "trained")
    yield "report", ft.diagnose(trained)
    with contextlib.suppress(ft.ReportError):
        yield "baseline", ft.diagnose(trained, baseline=_load(plain, "trained"))
    if (made.folder / HISTORY).exists():
        yield "history", ft.diagnose(*ft.load_history(made.folder / HISTORY))
    yield "test", ft.diagnose(trained, test=_load(made, "test"))


def _load(made: Made, name: str) -> ft.CaptureRecord:
    return ft.load_report(made.folder / f"{name}.json")


def loud_causes(findings: Iterable[ft.Finding]) -> list[ft.Finding]:
    """Return the warnings and errors that are causes, in their order."""
    return [each for each in findings if each.severity != "note" and each.follows_from is None]


def _judge(findings: Sequence[ft.Finding], cause: str, places: Sequence[str]) -> Verdict:
    loud = loud_causes(findings)
    naming = [finding for finding in loud if CAUSES[cause].is_named_by(finding)]
    return Verdict(
        named=bool(naming),
        advised=any(CAUSES[cause].is_served_by(finding) for finding in naming),
        placed=is_at(loud[0].layer, places) if loud and places else None,
        silent=not loud,
    )


def is_at(layer: str | None, places: Sequence[str]) -> bool:
    """Return whether a finding at this layer, None for the whole model, is at one of the places."""
    if layer is None:
        return "model" in places
    if layer in OUTER:
        return layer in places
    # A block that is no module is called by its number; in the networks written by hand it is around conv<i>.
    names = (layer, f"conv{layer[1:]}") if re.fullmatch(r"#\d+", layer) else (layer,)
    inside = [place for place in places if place not in (*OUTER, "model")]
    return any(re.search(place, name) for place in inside for name in names)


def look_at_healthy(made: Made, plain: Made) -> list[Look]:
    """Return all looks at one healthy run: single reports, with baselines, with test samples, its history."""
    reports = {name: _load(made, name) for name in ("untrained", "half", "trained", "test")}
    baseline = _load(plain, "trained")
    trained = reports["trained"]
    given = {name: ft.diagnose(record) for name, record in reports.items()}
    given["trained, baseline half-trained"] = ft.diagnose(trained, baseline=reports["half"])
    given["trained, baseline untrained"] = ft.diagnose(trained, baseline=reports["untrained"])
    if made.run.what == plain.run.what or made.run.what in SAME_DATA:
        given["trained, baseline plain"] = ft.diagnose(trained, baseline=baseline)
    given["trained, test"] = ft.diagnose(trained, test=reports["test"])
    looks = [_look(made, name, findings, is_series=False) for name, findings in given.items()]
    series = {"history": ft.load_history(made.folder / HISTORY)}
    series["three reports"] = tuple(reports[name] for name in ("untrained", "half", "trained"))
    return looks + [_look(made, name, ft.diagnose(*each), is_series=True) for name, each in series.items()]


SAME_DATA = ("warm-up and cosine", "high rate", "clipping at 0.1", "batches of eight", "twice the steps")
"""Controls whose samples and network are those of the plain training, which may be their baseline."""


def _look(made: Made, name: str, findings: Iterable[ft.Finding], *, is_series: bool) -> Look:
    loud = [finding for finding in findings if finding.severity != "note"]
    return Look(made.run.what, made.run.name, made.run.task, name, is_series, str(loud[0]) if loud else "")


def describe(made: Sequence[Made], kind: str) -> Iterator[str]:
    """Yield what is found in each run of a kind or control, in each setting, for those who mend rules."""
    plain = {each.run: each for each in made if each.run == each.run.plain}
    for each in made:
        if each.run.what != kind:
            continue
        healthy = plain[each.run.plain]
        yield f"\n{each.run.name}: harm {harm_of(each, healthy):.2f}"
        if not each.run.fails:
            yield from (
                f"  {look.given}: {look.finding}" for look in look_at_healthy(each, healthy) if look.finding
            )
            continue
        kind_of = KINDS[kind]
        cause = CAUSES[kind_of.cause]
        _, places = set_up(each.run, each.folder.parent)
        yield f"  cause: {kind_of.cause}; places: {', '.join(places) or 'any'}"
        for setting, findings in diagnose_in_settings(each, healthy):
            loud = loud_causes(findings)
            yield f"  {setting}: {'silent' if not loud else ''}"
            for number, finding in enumerate(loud[:5]):
                marks = ["names" if cause.is_named_by(finding) else "-"]
                marks.append("advice fits" if cause.is_served_by(finding) else "-")
                if number == 0 and places:
                    marks.append("at place" if is_at(finding.layer, places) else "elsewhere")
                yield f"    [{', '.join(marks)}] {finding}"
        if kind_of.spike is not None:
            yield f"  {_judge_spike(each, kind_of)}"


def describe_alarms(judgement: Judgement) -> Iterator[str]:
    """Yield each look at a healthy run that has a warning, with the first one."""
    yield from (f"{look.run}, {look.given}: {look.finding}" for look in judgement.looks if look.finding)
