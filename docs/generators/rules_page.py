"""Writes docs/rules.md, one section for each built-in rule, from the docstrings of the rules.

    python docs/generators/rules_page.py

A test fails where the page is not what this would write.
"""

import re
import textwrap
from pathlib import Path

from fno_telemetry import plugins
from fno_telemetry.diagnosis import Rule

PAGE = Path(__file__).parents[1] / "rules.md"

_NEEDS = {
    "target": "a target",
    "gradients": "gradients",
    "training": "a history of `watch`",
    "baseline": "a baseline",
    "test": "a report on test samples",
    "resolution": "a report of the same fields at another resolution",
}
_HEAD = """# The rules of `diagnose`

Each section is the docstring of a rule, which `fno-telemetry diagnose --explain RULE` prints too: what it
finds, the formula with its thresholds, where their defaults come from, and when it gives a false alarm. A
file can change the thresholds; see [diagnosis.md](diagnosis.md). `make docs-pages` writes this page.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(section(plugins.load("rules", name)) for name in plugins.RULES)])


def section(rule: Rule) -> str:
    """Return the section of one rule."""
    given = [_NEEDS[need] for need in rule.needs]
    if rule.takes_series:
        given.insert(0, "reports of several steps")
    lines = [f"## {rule.name}", "", *_paragraphs(rule.text)]
    if given:
        lines += [f"**Needs:** {', '.join(given)}.", ""]
    if rule.takes_baseline:
        lines += ["**Compares** with a baseline where there is one.", ""]
    return "\n".join(lines)


def _paragraphs(docstring: str) -> list[str]:
    """Return the lines of a docstring, each part that begins with a word and a colon as a paragraph."""
    lines: list[str] = []
    parts = re.split(r"^(?=(?:Formula|Default|False alarm when): )", docstring, flags=re.M)
    for part in parts:
        name, colon, rest = part.partition(": ")
        is_named = bool(colon) and name in ("Formula", "Default", "False alarm when")
        body = textwrap.dedent(" " * 4 + rest if is_named else part).strip() if is_named else part.strip()
        items = re.sub(r"\n\s+(?=\(\d\))", "\n", body)
        paragraph = [re.sub(r"\s*\n\s*(?!\(\d\))", " ", each) for each in items.split("\n\n")]
        shown = "\n".join(re.sub(r"\n(?=\(\d\))", "\n", each) for each in paragraph)
        for line in (f"**{name}:** {shown}" if is_named else shown).splitlines():
            lines += [*textwrap.wrap(line, 120, break_on_hyphens=False, break_long_words=False), ""]
    return lines


if __name__ == "__main__":
    main()
