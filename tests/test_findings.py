"""What all views show of findings: causes with their consequences, counts, and one line of evidence."""

import html
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from fno_telemetry.findings import (
    LONGEST_TEXT,
    MOST_NAMED,
    Finding,
    count_causes_by_key,
    describe_evidence,
    group_by_cause,
    to_one_line,
)
from fno_telemetry.records import FrozenMapping, freeze_mapping
from fno_telemetry.sinks.tensorboard.markdown import findings_list
from fno_telemetry.sinks.wandb.findings_table import COLUMNS, table_rows
from fno_telemetry_cli.showing.findings_view import findings_view


def finding(name: str, layer: str | None = "a", follows_from: str | None = None, **found) -> Finding:
    return Finding(
        id=name,
        rule=name,
        severity=found.pop("severity", "error"),
        layer=layer,
        step=None,
        report=None,
        message=name,
        evidence=freeze_mapping(found),
        advice="",
        follows_from=follows_from,
    )


@pytest.fixture
def grouped_ids():
    """Cause -> what follows from it, of these findings."""

    def group(*findings: Finding) -> dict[str, list[str]]:
        found = group_by_cause(findings)
        return {cause.finding.id: [each.id for each in cause.consequences] for cause in found}

    return group


def test_consequences_of_consequences_are_grouped_under_the_first_cause(grouped_ids):
    one, two = finding("one"), finding("two")
    second, third = finding("second", follows_from="one"), finding("third", follows_from="second")
    assert grouped_ids(one, two, second, third) == {"one": ["second", "third"], "two": []}


def test_a_finding_whose_cause_is_not_there_or_comes_later_is_not_hidden(grouped_ids):
    astray, early = finding("astray", follows_from="gone"), finding("early", follows_from="late")
    assert grouped_ids(astray, early, finding("late")) == {"astray": [], "early": [], "late": []}
    ring = finding("a", follows_from="b"), finding("b", follows_from="a")
    assert grouped_ids(*ring) == {"a": ["b"]}


def test_counts_are_of_causes_alone_and_there_are_none_where_nobody_looked(record, examples):
    expected = {"findings/error": 1, "findings/warning": 0, "findings/note": 1}
    assert count_causes_by_key(examples.add_findings(record)) == expected
    assert count_causes_by_key(replace(record, findings=())) == dict.fromkeys(expected, 0)
    assert count_causes_by_key(record) == {}


def test_a_cause_names_a_bounded_number_of_the_other_layers_each_once():
    later = [finding(f"{index}", f"layer {index // 2}", "one") for index in range(2 * (MOST_NAMED + 3))]
    found = (finding("one"), *later, finding("same", "a", "one"), finding("whole", None, "one"))
    [cause] = group_by_cause(found)
    named = ", ".join(f"layer {index}" for index in range(MOST_NAMED))
    assert cause.what_follows == (
        f"{MOST_NAMED + 4} more layers follow from this: {named} and 4 more; "
        "1 more finding follows from this in the same layer"
    )


def test_what_follows_is_said_in_the_singular_and_not_at_all():
    single = (finding("one"), finding("two", "b", "one"), finding("alone", "c"))
    said = [cause.what_follows for cause in group_by_cause(single)]
    assert said == ["1 more layer follows from this: b", ""]


def test_a_fault_that_lasts_is_said_with_the_last_step_at_which_it_is_found():
    first = replace(finding("one"), step=10)
    later = [replace(first, id=f"step{step}:one", step=step, follows_from="one") for step in (20, 30)]
    [cause] = group_by_cause([first, *later])
    assert cause.what_follows == "again in 2 later records, the last at step 30"
    [cause] = group_by_cause([first, later[0], finding("other", follows_from="one")])
    assert cause.what_follows == (
        "again in a later record at step 20; 1 more finding follows from this in the same layer"
    )


def test_evidence_is_one_line_of_names_and_numbers():
    found = finding("f", rms=0.123456, count=3, live=True, over=(1e-9, 2), by={"x": None}, where="a\nb")
    expected = "rms = 0.1235, count = 3, live = True, over = [1e-09, 2], by = {x: None}, where = a b"
    assert describe_evidence(found) == expected
    assert describe_evidence(finding("f")) == ""
    assert len(describe_evidence(finding("f", many=tuple(range(10_000))))) == LONGEST_TEXT


def test_text_is_what_any_dashboard_can_store():
    assert to_one_line("a\ud800 \n b\x1b[31m") == "a\\ud800 b?[31m"
    assert to_one_line("abcdef", 4) == "abc…"
    assert FrozenMapping({}) == finding("f").evidence


FOLLOWS = re.compile(r"^\d+ more layers? follows? from this: (.+)$")


def in_terminal(findings: tuple[Finding, ...]) -> list[str]:
    """Lines that start a cause, and the indented lines below it."""
    text = io.StringIO()
    Console(file=text, width=1000).print(*findings_view(findings), sep="\n")
    return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()][:-1]  # the counts


def in_tensorboard(findings: tuple[Finding, ...], record) -> list[str]:
    return [html.unescape(line) for line in findings_list(replace(record, findings=findings)).splitlines()]


def grouped(lines: list[str]) -> dict[str, list[str]]:
    """Layer of a cause -> layers that follow from it, as the lines of a view say."""
    groups: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("    "):
            words = line.removeprefix("- **").replace(":", " ").replace("**", " ").split()
            groups[layer := words[1]] = []
        elif found := FOLLOWS.match(line.strip().removeprefix("- ")):
            groups[layer] = found[1].split(", ")
    return groups


def test_an_orphan_and_a_chain_of_three_read_the_same_in_every_view(record):
    findings = (
        finding("one", "first"),
        finding("two", "second", "one"),
        finding("three", "third", "two"),
        finding("orphan", "alone", "gone", severity="warning"),
        finding("noted", "quiet", severity="note"),
        finding("explained", "last", "noted"),
    )
    expected = {"first": ["second", "third"], "alone": [], "quiet": ["last"]}
    terminal, dashboard = in_terminal(findings), in_tensorboard(findings, record)
    assert grouped(terminal) == expected
    assert grouped(dashboard) == expected
    sentence = "2 more layers follow from this: second, third"
    assert f"        {sentence}" in terminal
    assert f"    - {sentence}" in dashboard

    rows = [
        dict(zip(("id", *COLUMNS), (found.id, *row), strict=True))
        for found, row in zip(findings, table_rows(replace(record, findings=findings)), strict=True)
    ]
    # What explains the orphan may be in the report of an earlier step.
    assert [row["layer"] for row in rows if row["follows_from"] == "gone"] == ["alone"]
    assert "        follows from gone" in terminal
    assert "    - follows from gone" in dashboard
    table = {
        cause["layer"]: [row["layer"] for row in rows if row["follows_from"] == cause["id"]]
        for cause in rows
        if cause["follows_from"] in (None, "gone")
    }
    assert table == expected
    counts = count_causes_by_key(replace(record, findings=findings))
    assert counts == {"findings/error": 1, "findings/warning": 1, "findings/note": 1}
