"""What sinks show of findings: causes with their consequences, counts, and one line of evidence."""

from dataclasses import replace

import pytest

from fno_telemetry.findings import LONGEST_TEXT, MOST_NAMED, Finding, causes, counts, evidence, shorten
from fno_telemetry.records import CaptureRecord, FrozenMapping, freeze_mapping


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
def folded(record: CaptureRecord):
    """Cause -> what follows from it, of a record with these findings."""

    def fold(*findings: Finding) -> dict[str, list[str]]:
        found = causes(replace(record, findings=findings))
        return {cause.finding.id: [each.id for each in cause.consequences] for cause in found}

    return fold


def test_consequences_of_consequences_are_folded_under_the_first_cause(folded):
    one, two = finding("one"), finding("two")
    second, third = finding("second", follows_from="one"), finding("third", follows_from="second")
    assert folded(one, two, second, third) == {"one": ["second", "third"], "two": []}


def test_a_finding_whose_cause_is_not_there_or_comes_later_is_not_hidden(folded):
    astray, early = finding("astray", follows_from="gone"), finding("early", follows_from="late")
    assert folded(astray, early, finding("late")) == {"astray": [], "early": [], "late": []}
    ring = finding("a", follows_from="b"), finding("b", follows_from="a")
    assert folded(*ring) == {"a": ["b"]}


def test_counts_are_of_causes_alone_and_there_are_none_where_nobody_looked(record, examples):
    expected = {"findings/error": 1, "findings/warning": 0, "findings/note": 1}
    assert counts(examples.add_findings(record)) == expected
    assert counts(replace(record, findings=())) == dict.fromkeys(expected, 0)
    assert counts(record) == {}


def test_a_cause_names_a_bounded_number_of_the_other_layers_each_once(record):
    later = [finding(f"{index}", f"layer {index // 2}", "one") for index in range(2 * (MOST_NAMED + 3))]
    found = (finding("one"), *later, finding("same", "a", "one"), finding("whole", None, "one"))
    [cause] = causes(replace(record, findings=found))
    named = ", ".join(f"layer {index}" for index in range(MOST_NAMED))
    assert cause.what_follows == (
        f"{MOST_NAMED + 4} later layers follow from this: {named} and 4 more; "
        "1 more of the same layer follows from this"
    )


def test_what_follows_is_said_in_the_singular_and_not_at_all(record):
    single = (finding("one"), finding("two", "b", "one"), finding("alone", "c"))
    said = [cause.what_follows for cause in causes(replace(record, findings=single))]
    assert said == ["1 later layer follows from this: b", ""]


def test_evidence_is_one_line_of_names_and_numbers():
    found = finding("f", rms=0.123456, count=3, live=True, over=(1e-9, 2), by={"x": None}, where="a\nb")
    expected = "rms = 0.1235, count = 3, live = True, over = [1e-09, 2], by = {x: None}, where = a b"
    assert evidence(found) == expected
    assert evidence(finding("f")) == ""
    assert len(evidence(finding("f", many=tuple(range(10_000))))) == LONGEST_TEXT


def test_text_is_what_any_dashboard_can_store():
    assert shorten("a\ud800 \n b") == "a\\ud800 b"
    assert shorten("abcdef", 4) == "abc…"
    assert FrozenMapping({}) == finding("f").evidence
