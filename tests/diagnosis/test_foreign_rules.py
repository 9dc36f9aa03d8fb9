"""A rule of another package: grouped under a built-in cause like the built-in rules, in every view."""

import html
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fno_telemetry.diagnosis import example_records
from fno_telemetry.diagnosis.findings import diagnose
from fno_telemetry.findings import Finding, group_by_cause
from fno_telemetry.sinks.tensorboard.markdown import findings_list
from fno_telemetry.sinks.wandb.findings_table import COLUMNS, table_rows
from fno_telemetry_cli.showing.findings_view import findings_view

RULES = """
from fno_telemetry.diagnosis import Consequences, Symptom, module_places, rule, select_defined

def narrow(record, *, least=0.01):
    for place, std in select_defined(module_places(record), "std"):
        if std < least and place.name != "lifter.conv":
            yield Symptom(
                severity="error", place=place, message="is narrow", evidence={"std": std}, advice="Widen it.",
                explains=Consequences(about=("weights",)),
            )

narrow_values = rule(about="values")(narrow)
narrow_weights = rule(about="weights")(narrow)

@rule(about="steps")
def last_record(series):
    yield Symptom(severity="note", message="is the last", evidence={"records": len(series)}, advice="None.")

@rule(about="steps")
def broken_series(series):
    yield series.absent
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "foreign-1.dist-info"
    info.mkdir()
    (tmp_path / "foreign.py").write_text(RULES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    names = ("narrow_values", "narrow_weights", "last_record", "broken_series")
    points = "\n".join(f"{name} = foreign:{name}" for name in names)
    (info / "entry_points.txt").write_text(f"[fno_telemetry.rules]\n{points}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)


@pytest.fixture
def findings(package: None) -> tuple[Finding, ...]:
    """Of a network whose first layer is dead, and in which two rules of another package find something."""
    record = example_records.change_module(example_records.healthy_record(), "lifter.conv", rms=0.0)
    record = example_records.change_module(record, "blocks.1.local", std=0.0, relative_sample_variation=0.0)
    return diagnose(record)


def test_a_rule_about_values_follows_from_a_dead_first_layer_and_one_about_weights_does_not(findings):
    groups = {
        (cause.finding.rule, cause.finding.layer): {(each.rule, each.layer) for each in cause.consequences}
        for cause in group_by_cause(findings)
    }
    assert groups == {
        ("dead_layer", "lifter.conv"): {
            ("input_independent", "blocks.1.local"),
            ("narrow_values", "blocks.1.local"),
        },
        ("narrow_weights", "blocks.1.local"): set(),
    }


def test_every_view_groups_it(findings, capsys):
    record = replace(example_records.healthy_record(), findings=findings)
    Console(width=1000).print(*findings_view(findings), sep="\n")
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    written = [html.unescape(line).strip() for line in (findings_list(record) or "").splitlines()]
    assert "1 more layer follows from this: blocks.1.local" in printed
    assert "- 1 more layer follows from this: blocks.1.local" in written
    assert not [line for line in (*printed, *written) if "narrow_values" in line]
    rows = {row["rule"]: row for row in (dict(zip(COLUMNS, row, strict=True)) for row in table_rows(record))}
    assert rows["narrow_values"]["follows_from"] == "dead_layer:lifter.conv"
    assert rows["narrow_weights"]["follows_from"] is None


def test_rules_over_a_series_report_at_its_last_record_and_a_broken_one_costs_nothing(package):
    records = [example_records.healthy_record()] * 3
    found = {finding.rule: finding for finding in diagnose(*example_records.make_series(*records))}
    assert set(found) == {"last_record", "broken_series"}
    assert (found["last_record"].step, found["last_record"].id) == (20, "step20:last_record:model")
    assert "AttributeError" in found["broken_series"].message


def test_the_name_of_the_entry_point_is_the_name_of_the_rule(findings):
    assert {finding.rule for finding in findings} >= {"narrow_values", "narrow_weights"}
