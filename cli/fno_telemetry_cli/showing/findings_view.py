"""Findings as the terminal and JSON show them: causes with their evidence and advice, consequences folded."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry_cli.options.spelling import spell_options
from fno_telemetry_cli.showing.tables import format_count, format_counts, some
from fno_telemetry_cli.showing.terminal import one_line

LEVELS = ("note", "warning", "error", "never")
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def check_level(level: str) -> str:
    """Return the level of --fail-on; OptionError when there is no such level."""
    if level not in LEVELS:
        raise ft.OptionError(f"--fail-on {level!r}: expected {', '.join(LEVELS)}")
    return level


def is_at_or_above(findings: Sequence[ft.Finding], level: str) -> bool:
    """Whether one of the findings is as severe as the level."""
    return any(LEVELS.index(finding.severity) >= LEVELS.index(level) for finding in findings)


def findings_document(findings: Sequence[ft.Finding]) -> list[dict[str, Any]]:
    """Return the findings as JSON writes them."""
    names = [field.name for field in dataclasses.fields(ft.Finding)]
    return [
        {name: getattr(finding, name) for name in names} | {"evidence": dict(finding.evidence)}
        for finding in findings
    ]


def findings_view(findings: Sequence[ft.Finding], quiet: bool = False) -> Iterator[RenderableType]:
    """Yield what a reader needs: errors and warnings one by one, notes of a rule together, then the count.

    With `quiet`, a line for each error and warning that follows from nothing else.
    """
    causes = [finding for finding in findings if finding.follows_from is None]
    several = len({finding.report for finding in findings}) > 1
    for finding in causes:
        if finding.severity != "note":
            yield _line(finding, "", several)
            if not quiet:
                yield from _below(finding, [f for f in findings if f.follows_from == finding.id])
    if not quiet:
        yield from _notes([finding for finding in causes if finding.severity == "note"])
        yield Text(format_counts(findings), style="bold" if causes else "green")


def _line(finding: ft.Finding, more: str, several: bool) -> Text:
    # Names and messages may come out of a file or another package, with whatever a terminal would obey.
    return Text.assemble(
        (f"{finding.severity:8}", _STYLES[finding.severity]),
        (one_line(finding.layer or "the model"), "bold"),
        f" {one_line(finding.message)}{more}",
        (f"  {finding.rule}" + (f"  at {_when(finding)}" if several else ""), "dim"),
    )


def _below(finding: ft.Finding, consequences: Sequence[ft.Finding]) -> Iterator[RenderableType]:
    lines = [Text(one_line(" · ".join(_evidence(finding))), style="dim")] if finding.evidence else []
    lines.append(Text(f"→ {one_line(spell_options(finding.advice))}"))
    if consequences:
        others = (one.layer or "the model" for one in consequences if one.layer != finding.layer)
        layers = list(dict.fromkeys(map(one_line, others)))
    else:
        layers = []
    if layers:
        verb = "follows" if len(layers) == 1 else "follow"
        lines.append(
            Text(f"{format_count(len(layers), 'layer')} {verb} from this: {some(layers)}", style="dim")
        )
    for line in lines:
        yield Padding(line, (0, 0, 0, 8), expand=False)


def _notes(notes: Sequence[ft.Finding]) -> Iterator[RenderableType]:
    by_rule: dict[str, list[ft.Finding]] = {}
    for note in notes:
        by_rule.setdefault(note.rule, []).append(note)
    for same in by_rule.values():
        layers = list(dict.fromkeys(note.layer for note in same))
        more = f"; and {format_count(len(layers) - 1, 'more layer')}" if len(layers) > 1 else ""
        yield _line(same[0], more, several=False)


def _evidence(finding: ft.Finding) -> Iterator[str]:
    for name, value in finding.evidence.items():
        yield f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def _when(finding: ft.Finding) -> str:
    return f"step {finding.step}" if finding.step is not None else str(finding.report)
