"""Findings as the terminal and JSON show them: causes with evidence, advice and what follows."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.diagnosis import Skipped, find_page
from fno_telemetry.findings import (
    SEVERITIES,
    Cause,
    describe_counts,
    describe_evidence,
    group_by_cause,
)
from fno_telemetry.wording import hint_at_names, join_names, to_one_line, to_printable
from fno_telemetry_cli.options.spelling import spell_options
from fno_telemetry_cli.showing.tables import format_count, some

LEVELS = (*SEVERITIES, "never")
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}

_MOST_LACKING = 3  # things that were not given, in one line


def check_level(level: str) -> str:
    """Return the level of --fail-on; OptionError when there is no such level."""
    if level not in LEVELS:
        raise ft.OptionError(f"--fail-on {level!r}: no such level. {hint_at_names(level, LEVELS)}")
    return level


def is_at_or_above(findings: Sequence[ft.Finding], level: str) -> bool:
    """Whether one of the findings is as severe as the level."""
    return any(LEVELS.index(finding.severity) >= LEVELS.index(level) for finding in findings)


def findings_document(findings: Sequence[ft.Finding]) -> list[dict[str, Any]]:
    """Return the findings as JSON writes them."""
    names = [field.name for field in dataclasses.fields(ft.Finding)]
    return [
        {name: getattr(finding, name) for name in names}
        | {"evidence": dict(finding.evidence), "page": find_page(finding.rule)}
        for finding in findings
    ]


def findings_view(
    findings: Sequence[ft.Finding], quiet: bool = False, most: int | None = None
) -> Iterator[RenderableType]:
    """Yield each cause with its evidence, advice and what follows from it, then how many causes there are.

    Notes from which nothing follows but themselves at later steps are listed by rule. With `quiet`, yield one
    line for each cause that is an error or a warning. With `most`, only so many of the first causes are
    yielded, which are the worst, and notes only where there is nothing worse; then a line says how many were
    left out.
    """
    causes = group_by_cause(findings)
    shown = causes if most is None else _choose(causes)[:most]
    several = len({finding.report for finding in findings}) > 1
    notes = [cause for cause in causes if cause.finding.severity == "note" and _only_lasts(cause)]
    for cause in shown:
        if cause in notes or (quiet and cause.finding.severity == "note"):
            continue
        yield _line(cause.finding, "", several)
        if not quiet:
            yield from _details(cause)
    if not quiet:
        yield from _notes([note.finding for note in notes if note in shown])
        if len(shown) < len(causes):
            yield Text(f"and {format_count(len(causes) - len(shown), 'more finding')}: --all")
        yield Text(describe_counts(findings), style="bold" if causes else "green")


def skipped_view(skipped: Sequence[Skipped], show_all: bool = False) -> Iterator[RenderableType]:
    """Yield a line about what was not given, and how many rules were not applied without it.

    With `show_all`, a line for each of these things, with how to give it.
    """
    if show_all:
        yield from (Text(spell_options(str(each)), style="dim") for each in skipped)
        return
    if number := sum(len(each.rules) for each in skipped):
        lacks = join_names([each.missing for each in skipped if each.rules], _MOST_LACKING)
        yield Text(
            f"{format_count(number, 'rule')} not applied: {lacks}; --all says what to give", style="dim"
        )


def _choose(causes: Sequence[Cause]) -> Sequence[Cause]:
    """Return the causes from which an error or a warning comes; without any, all of them, which are notes."""
    return [cause for cause in causes if cause.worst != "note"] or causes


def skipped_document(skipped: Sequence[Skipped]) -> list[dict[str, Any]]:
    """Return what could not be judged as JSON writes it."""
    return [dataclasses.asdict(each) | {"give": spell_options(each.give)} for each in skipped]


def _only_lasts(cause: Cause) -> bool:
    """Whether nothing follows but the same finding at later steps."""
    finding = cause.finding
    return all((each.rule, each.layer) == (finding.rule, finding.layer) for each in cause.consequences)


def _line(finding: ft.Finding, more: str, several: bool) -> Text:
    # Names and messages may come out of a file or another package, with whatever a terminal would obey.
    return Text.assemble(
        (f"{finding.severity:8}", _STYLES[finding.severity]),
        (to_one_line(finding.where), "bold"),
        f" {to_one_line(finding.message)}{more}",
        (to_printable(f"  {finding.rule}" + (f"  at {finding.when}" if several else "")), "dim"),
    )


def _details(cause: Cause) -> Iterator[RenderableType]:
    evidence = describe_evidence(cause.finding)
    lines = [Text(evidence, style="dim")] if evidence else []
    lines.append(Text(f"→ {to_one_line(spell_options(cause.finding.what_to_do))}"))
    lines += [Text(text, style="dim") for text in (cause.follows_from, cause.what_follows) if text]
    for line in lines:
        yield Padding(line, (0, 0, 0, 8), expand=False)


def _notes(notes: Sequence[ft.Finding]) -> Iterator[RenderableType]:
    by_rule: dict[str, list[ft.Finding]] = {}
    for note in notes:
        by_rule.setdefault(note.rule, []).append(note)
    for first, *rest in by_rule.values():
        layers = some(list(dict.fromkeys(to_one_line(note.where) for note in rest)))
        more = f"; and {format_count(len(rest), 'more note')} of this rule, in {layers}" if rest else ""
        yield _line(first, more, several=False)
