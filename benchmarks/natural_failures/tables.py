"""The tables of docs/diagnosis.md about natural failures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.natural_failures.corpus import HARM
from benchmarks.natural_failures.judge import SETTINGS, Judgement, Outcome

BEGIN, END = "<!-- natural failures: begin -->", "<!-- natural failures: end -->"
T = TypeVar("T")


def all_tables(judgement: Judgement) -> Iterator[str]:
    """Yield Markdown: failures by kind, sums, healthy runs, spikes."""
    yield from by_kind(judgement.outcomes)
    yield ""
    yield from sums(judgement.outcomes)
    yield ""
    yield from healthy(judgement)
    yield ""
    yield from spikes(judgement.outcomes)


def by_kind(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield how often each kind is named, by what was given."""
    given = "named: report | + baseline | history | + test | any"
    yield f"| failure | runs | harmful | {given} | advice fits | first at place | silent |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.what, []).append(outcome)
    for kind, members in kinds.items():
        yield _row(kind, members)
    yield _row("**all**", outcomes)


def _row(name: str, members: Sequence[Outcome]) -> str:
    harmful = [each for each in members if each.counts]
    cells = [_named_in(harmful, setting) for setting in SETTINGS]
    named = [each for each in harmful if is_named(each)]
    told = [each for each in harmful if has_place(each)]
    cells += [
        _share(harmful, is_named),
        _share(named, is_advised),
        _share(told, is_placed),
        _share(harmful, is_silent),
    ]
    return f"| {name} | {len(members)} | {len(harmful)} | {' | '.join(cells)} |"


def is_named(outcome: Outcome) -> bool:
    """Return whether the cause is named in at least one setting."""
    return any(verdict.named for verdict in outcome.verdicts.values())


def is_advised(outcome: Outcome) -> bool:
    """Return whether the advice fits in a setting that names the cause."""
    return any(verdict.advised for verdict in outcome.verdicts.values())


def is_placed(outcome: Outcome) -> bool:
    """Return whether the first finding is at the right place: where the cause is named, else anywhere."""
    verdicts = outcome.verdicts.values()
    speaking = [verdict for verdict in verdicts if verdict.named] or list(verdicts)
    return any(verdict.placed for verdict in speaking)


def has_place(outcome: Outcome) -> bool:
    """Return whether there is a finding, and a place where it should be."""
    return any(verdict.placed is not None for verdict in outcome.verdicts.values())


def is_silent(outcome: Outcome) -> bool:
    """Return whether there is no warning in any setting."""
    return all(verdict.silent for verdict in outcome.verdicts.values())


def _named_in(members: Sequence[Outcome], setting: str) -> str:
    of_setting = [each for each in members if setting in each.verdicts]
    return _share(of_setting, lambda each: each.verdicts[setting].named)


def sums(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the sums that the issue asks for."""
    harmful = [each for each in outcomes if each.counts]
    what = f"{len(harmful)} harmful failures (test error at least {HARM} times the healthy one)"
    placed = "first finding at the right place, of those with one"
    yield f"| {what} | named | advice fits, of the named | {placed} | silent |"
    yield "|---|---:|---:|---:|---:|"
    for setting, title in zip(
        SETTINGS,
        ("one report with its target", "with the healthy report as `--baseline`", "history", "with `--test`"),
        strict=True,
    ):
        verdicts = [each.verdicts[setting] for each in harmful if setting in each.verdicts]
        named = [verdict for verdict in verdicts if verdict.named]
        loud = [verdict for verdict in verdicts if verdict.placed is not None]
        cells = [
            _share(verdicts, lambda v: v.named),
            _share(named, lambda v: v.advised),
            _share(loud, lambda v: bool(v.placed)),
            _share(verdicts, lambda v: v.silent),
        ]
        yield f"| {title} | {' | '.join(cells)} |"
    named_runs = [each for each in harmful if is_named(each)]
    told = [each for each in harmful if has_place(each)]
    cells = [
        _share(harmful, is_named),
        _share(named_runs, is_advised),
        _share(told, is_placed),
        _share(harmful, is_silent),
    ]
    yield f"| any of them | {' | '.join(cells)} |"
    without = [each for each in outcomes if not each.counts]
    yield f"\n{len(without)} of {len(outcomes)} runs did no harm and are left out."


def healthy(judgement: Judgement) -> Iterator[str]:
    """Yield how many looks at healthy runs have a warning."""
    yield "| healthy runs | looks | with a warning |"
    yield "|---|---:|---:|"
    for given in dict.fromkeys(look.given for look in judgement.looks):
        looks = [look for look in judgement.looks if look.given == given]
        yield f"| {given} | {len(looks)} | {sum(bool(look.finding) for look in looks)} |"
    for is_series, title in ((False, "**single reports**"), (True, "**series**")):
        looks = [look for look in judgement.looks if look.is_series == is_series]
        yield f"| {title} | {len(looks)} | {_share(looks, lambda look: bool(look.finding))} |"
    for task in dict.fromkeys(look.task for look in judgement.looks):
        looks = [look for look in judgement.looks if look.task == task]
        yield f"| of {task} | {len(looks)} | {sum(bool(look.finding) for look in looks)} |"


def spikes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield whether steps of breaks are found, and how early a watched run warns."""
    yield "| break | runs | step right | warned before the loss had risen by half | lead in steps, median |"
    yield "|---|---:|---:|---:|---:|"
    found = [each for each in outcomes if each.spike is not None and each.counts]
    kinds = dict.fromkeys(each.what for each in found)
    for kind in (*kinds, None):
        members = [each.spike for each in found if each.spike is not None and kind in (None, each.what)]
        leads = [each.lead for each in members if each.lead is not None]
        cells = [
            _share(members, lambda spike: spike.right),
            _share(members, lambda spike: spike.early),
            f"{median(leads):g}" if leads else "–",
        ]
        yield f"| {kind or '**all**'} | {len(members)} | {' | '.join(cells)} |"


def put_between_marks(text: str, path: Path) -> None:
    """Replace what is between the two marks of a document."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} does not have the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _share(members: Sequence[T], says: Callable[[T], bool]) -> str:
    if not members:
        return "–"
    number = sum(map(says, members))
    percent = f" ({100 * number / len(members):.0f} %)" if len(members) >= 50 else ""
    return f"{number} of {len(members)}{percent}"
