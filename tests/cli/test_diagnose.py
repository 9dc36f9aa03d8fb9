"""`diagnose`, and `capture --diagnose`: what is printed, what is written, how they end."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import fno_telemetry as ft
from fno_telemetry import plugins, report
from fno_telemetry.diagnosis import example_records, explain_rule
from fno_telemetry.records import FrozenMapping, freeze_mapping
from fno_telemetry_cli.options.spelling import spell_options
from fno_telemetry_cli.showing.findings_view import findings_view

FINDING_KEYS = {
    *(
        "id",
        "rule",
        "severity",
        "layer",
        "step",
        "report",
        "message",
        "evidence",
        "advice",
        "confirm",
        "follows_from",
        "page",
    )
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the width of the terminal that the tests were started from."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    path = tmp_path / "healthy.json"
    report.write(example_records.healthy_record(), path)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A lifting that returns nothing, and all that follows from it; one spectral layer keeps few modes."""
    record = example_records.healthy_record()
    for module in record.modules:
        name = module.name
        if name.startswith("lifter"):
            record = example_records.change_module(record, name, rms=0.0, min=0.0, max=0.0)
        elif not name.endswith("act"):
            record = example_records.change_module(record, name, relative_sample_variation=0.0)
    record = example_records.change_module(record, "blocks.1.spectral", unused_weight_fraction=0.5)
    record = example_records.change_output(record, relative_sample_variation=0.0)
    path = tmp_path / "broken.json"
    report.write(record, path)
    return path


def test_a_healthy_report_ends_well(run, healthy):
    result = run("diagnose", healthy)
    assert (result.code, result.err) == (0, "")
    assert "nothing found" in result.out.splitlines()


def test_the_cause_comes_first_with_its_evidence_and_advice_and_the_rest_is_folded(run, broken):
    result = run("diagnose", broken, "--all")
    assert result.code == 1
    lines = [line.strip() for line in result.out.splitlines()]
    assert lines[1].startswith("error   lifter.conv returns zero everywhere")
    assert lines[1].endswith("dead_layer")
    assert lines[2].startswith("rms = 0")
    assert lines[3].startswith("→ ")
    assert " ".join(lines[4:6]) == (
        "10 more layers follow from this: lifter, blocks.0.spectral, blocks.0.local, blocks.0, "
        "blocks.1.spectral, blocks.1.local, blocks.1, blocks.2.spectral and 2 more"
    )
    assert lines[6].startswith("note    blocks.1.spectral never uses 50 % of its weights")
    assert lines[7] == "1 error, 1 note"
    assert any(line.startswith("no baseline: ") for line in lines[8:])


def test_json_is_one_document_of_findings(run, broken):
    result = run("diagnose", broken, "--json")
    assert (result.code, result.err) == (1, "")
    assert result.document["schema"] == "fno-telemetry-diagnose/1"
    findings = result.document["findings"]
    assert all(set(finding) == FINDING_KEYS for finding in findings)
    first = findings[0]
    assert (first["rule"], first["layer"], first["severity"]) == ("dead_layer", "lifter.conv", "error")
    assert first["follows_from"] is None
    assert first["report"] == str(broken)
    assert first["evidence"]["rms"] == 0
    identities = [finding["id"] for finding in findings]
    assert len(set(identities)) == len(identities)
    assert {f["follows_from"] for f in findings} == {None, first["id"]}


@pytest.mark.parametrize(("level", "code"), [("note", 1), ("warning", 1), ("error", 1), ("never", 0)])
def test_fail_on_decides_the_exit_code_of_errors(run, broken, level, code):
    assert run("diagnose", broken, "--fail-on", level, "--quiet").code == code


@pytest.mark.parametrize(("level", "code"), [("note", 1), ("warning", 0), ("error", 0)])
def test_fail_on_decides_the_exit_code_of_notes(run, tmp_path, level, code):
    noted = example_records.change_module(
        example_records.healthy_record(), "blocks.1.spectral", unused_weight_fraction=0.5
    )
    report.write(noted, tmp_path / "noted.json")
    assert run("diagnose", tmp_path / "noted.json", "--fail-on", level).code == code


def test_quiet_prints_a_line_for_each_cause_and_no_notes(run, broken, healthy):
    assert (
        run("diagnose", broken, "--quiet").out == "error   lifter.conv returns zero everywhere  dead_layer\n"
    )
    assert run("diagnose", healthy, "--quiet").out == ""


def test_a_baseline_shows_what_was_lost_since(run, healthy, tmp_path):
    record = example_records.healthy_record()
    for index in range(3):
        record = example_records.change_block(record, index, spectral_local_ratio=0.1)
    report.write(record, tmp_path / "later.json")
    assert run("diagnose", tmp_path / "later.json").code == 0
    result = run("diagnose", tmp_path / "later.json", "--baseline", healthy)
    assert result.code == 1
    assert (
        "blocks.0 hardly uses its spectral branch: the ratio of spectral to local rms is 0.1 "
        "(in the baseline: 1)" in result.out
    )


def test_a_baseline_of_other_samples_is_said(run, healthy, tmp_path):
    other = replace(example_records.healthy_record(), provenance=freeze_mapping({"input": {"digest": "1"}}))
    report.write(other, tmp_path / "other.json")
    assert (
        "the baseline used different samples"
        in run("diagnose", healthy, "--baseline", tmp_path / "other.json").err
    )
    assert run("diagnose", healthy, "--baseline", healthy).err == ""


def test_thresholds_come_from_a_file(run, healthy, tmp_path):
    limits = tmp_path / "limits.toml"
    limits.write_text("[diagnose.heavy_tail]\ntail = 2\nof_input = 0.1\n[compare]\ndistance = 1\n")
    result = run("diagnose", healthy, "--thresholds", limits, "--rule", "heavy_tail")
    assert result.code == 1
    assert "1 warning" in result.out.splitlines()
    assert "7 more layers follow from this" in result.out


def test_a_series_says_since_when_and_says_it_once(run, tmp_path):
    for index, rms in enumerate((1.0, 1.1, 30.0, 40.0)):
        record = example_records.change_module(
            example_records.healthy_record(), "blocks.1.local", rms=rms, dead_channel_fraction=0.5 * (rms > 2)
        )
        report.write(
            example_records.set_step(record, 10 * index),
            tmp_path / f"activation_report.step{10 * index}.json",
        )
    result = run("diagnose", tmp_path)
    assert result.code == 1
    assert "error   blocks.1 broke at step 20" in result.out
    assert "collapse_at_step  at step 20" in result.out
    assert result.out.count("dead channels") <= 1
    assert result.out.splitlines()[0].startswith("4 reports, steps 0 to 30")


@pytest.mark.parametrize("rule", plugins.RULES)
def test_no_threshold_of_a_rule_is_taken_for_an_option(rule):
    explained = explain_rule(rule)
    shown = " ".join(spell_options(explained.text).split())
    assert [name for name in explained.thresholds if f"`{name}`" not in shown] == []


def test_an_explanation_names_the_option_that_a_rule_needs(run):
    shown = run("diagnose", "--explain", "vanishing_gradient").out
    assert "--loss" in shown
    assert "`loss`" not in shown


def test_a_rule_explains_itself(run):
    result = run("diagnose", "--explain", "dead_layer")
    assert (result.code, result.err) == (0, "")
    for words in (
        "Formula: rms <= `near_zero` (1e-6)",
        "Default:",
        "False alarm when:",
        "[diagnose.dead_layer]",
        "near_zero = 1e-06",
    ):
        assert words in result.out
    document = run("diagnose", "--explain", "dead_layer", "--json").document
    assert document["thresholds"] == {"near_zero": 1e-6, "ordinary": 1e-3}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["diagnose"], "needs a report"),
        (["diagnose", "absent.json"], "absent.json: no such file"),
        (["diagnose", "text.json"], "text.json: not JSON"),
        (["diagnose", "--explain", "dead_lair"], "No rule is called 'dead_lair'. Did you mean dead_layer?"),
        (["diagnose", "text.json", "--explain", "dead_layer"], "--explain dead_layer needs no report"),
        (["diagnose", "ok.json", "--rule", "dead_lair"], "No rule is called 'dead_lair'"),
        (["diagnose", "ok.json", "--fail-on", "fatal"], "--fail-on 'fatal': no such level. Known: note, "),
        (["diagnose", "ok.json", "--thresholds", "absent.toml"], "absent.toml: no such file"),
        (
            ["diagnose", "ok.json", "--thresholds", "unknown.toml"],
            "no rule is called 'dead_lair'. Did you mean",
        ),
        (["diagnose", "ok.json", "--thresholds", "table.toml"], "called 'diagnos'. Did you mean diagnose?"),
        (
            ["diagnose", "ok.json", "--thresholds", "limit.toml"],
            "dead_layer has no threshold 'limit'. Known: near_zero",
        ),
        (["diagnose", "ok.json", "--thresholds", "words.toml"], "dead_layer.near_zero = 'low': a number"),
        (["diagnose", "ok.json", "--thresholds", "flat.toml"], "[diagnose.dead_layer] must be a table"),
        (["diagnose", "ok.json", "--thresholds", "text.json"], "text.json: not TOML"),
        (["diagnose", "ok.json", "--baseline", "text.json"], "text.json: not JSON"),
        (["diagnose", "steps"], "steps of different kinds (epoch, step)"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_one_line_and_exit_2(run, folder, line, words):
    report.write(example_records.healthy_record(), folder / "ok.json")
    (folder / "text.json").write_text("no = json = at all")
    (folder / "unknown.toml").write_text("[diagnose.dead_lair]\nlimit = 1\n")
    (folder / "table.toml").write_text("[tool.mine]\nlimit = 1\n[diagnos.dead_layer]\nlimit = 1\n")
    (folder / "limit.toml").write_text("[diagnose.dead_layer]\nlimit = 1\n")
    (folder / "words.toml").write_text('[diagnose.dead_layer]\nnear_zero = "low"\n')
    (folder / "flat.toml").write_text("[diagnose]\ndead_layer = 1\n")
    report.write(example_records.set_step(example_records.healthy_record(), 1), folder / "steps" / "a.json")
    other = example_records.set_step(example_records.healthy_record(), 2)
    by_epoch = replace(other, summary=type(other.summary)({**other.summary, "step_kind": "epoch"}))
    report.write(by_epoch, folder / "steps" / "b.json")
    result = run(*line)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert len(result.err.splitlines()) == 1


RULES = """
import numpy as np

from fno_telemetry.diagnosis import Symptom, module_places, rule

@rule(about="values")
def loud_layer(record, *, most=0.5):
    for place in module_places(record):
        if (rms := place.value("rms")) is not None and rms > most:
            evidence = {"rms": rms}
            yield Symptom(
                severity="warning", place=place, message="is loud", evidence=evidence, advice="Hush."
            )

@rule(about="values")
def clumsy(record):
    yield record.absent

def plain(record):
    yield from ()

@rule(about="values")
def undefined(record):
    evidence = {"nan": float("nan"), "inf": np.float32("inf"), "none": None, "n": np.int64(3), "why": "so"}
    yield Symptom(severity="warning", message="is odd", evidence=evidence, advice="Look.")

@rule(about="values")
def with_a_list(record):
    yield Symptom(severity="note", message="is odd", evidence={"shape": [1, 2]}, advice="Look.")

@rule(about="values")
def fatal(record):
    yield Symptom(severity="fatal", message="is odd", evidence={}, advice="Look.")

@rule(about="values")
def wordless(record):
    yield Symptom(severity="note", message=3, evidence={}, advice="Look.")

@rule(about="values")
def other(record):
    yield "loud"
"""


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "site"
    info = home / "more_rules-1.dist-info"
    info.mkdir(parents=True)
    (home / "more_rules.py").write_text(RULES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-rules\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fno_telemetry.rules]\nloud_layer = more_rules:loud_layer\nclumsy = more_rules:clumsy\n"
        "lost = more_rules:absent\nplain = more_rules:plain\nundefined = more_rules:undefined\n"
        "with_a_list = more_rules:with_a_list\nfatal = more_rules:fatal\nwordless = more_rules:wordless\n"
        "other = more_rules:other\n"
    )
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "more_rules", raising=False)


def test_rules_of_other_packages_are_applied_and_broken_ones_cost_nothing(run, package, healthy):
    result = run("diagnose", healthy, "--json")
    assert result.code == 1
    by_rule = {finding["rule"]: finding for finding in result.document["findings"]}
    assert by_rule["loud_layer"]["advice"] == "Hush."
    assert "AttributeError" in by_rule["clumsy"]["message"]
    assert "'plain' is a function, not a rule: put @fno_telemetry." in by_rule["plain"]["message"]
    assert {by_rule[name]["severity"] for name in ("clumsy", "lost", "plain")} == {"note"}
    for option in ("--rule", "--explain"):
        refused = run("diagnose", *([healthy] if option == "--rule" else []), option, "plain")
        assert refused.code == 2
        assert "not a rule: put @fno_telemetry.diagnosis.rule(about=…) above the function" in refused.err
    listed = run("plugins").out
    assert "loud_layer" in listed
    assert "more-rules" in listed


def test_evidence_that_is_undefined_is_null_in_json_and_in_a_report(run, package, healthy, tmp_path):
    result = run("diagnose", healthy, "--rule", "undefined", "--json")
    assert result.code == 1
    [finding] = result.document["findings"]
    assert finding["evidence"] == {"nan": None, "inf": None, "n": 3, "why": "so"}
    assert "nan = nan, inf = inf, n = 3, why = so" in run("diagnose", healthy, "--rule", "undefined").out
    record = ft.load_report(healthy)
    report.write(replace(record, findings=ft.diagnose(record, rules=["undefined"])), tmp_path / "found.json")
    [read] = ft.load_report(tmp_path / "found.json").findings
    assert dict(read.evidence) == finding["evidence"]
    assert run("view", tmp_path / "found.json").code == 0


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("with_a_list", "its evidence 'shape' is of type list; expected a number or text"),
        ("fatal", "its severity is 'fatal'"),
        ("wordless", "its message is of type int; expected a text"),
        ("other", "it yields a str, not a Symptom"),
    ],
)
def test_a_symptom_that_no_view_can_show_is_told_in_a_note(run, package, healthy, rule, why):
    result = run("diagnose", healthy, "--rule", rule, "--json")
    assert result.code == 0
    [finding] = result.document["findings"]
    assert (finding["severity"], finding["rule"]) == ("note", rule)
    assert finding["message"] == f"could not be judged by this rule: TypeError: {why}"


def test_a_capture_writes_its_findings_into_the_report(run, folder):
    result = run("capture", "--input", "train.npz", "--output", "out", "--diagnose")
    assert result.code == 0
    assert "one_sided_spectrum" in result.out
    written = ft.load_report(folder / "out" / "activation_report.json")
    assert written.findings
    assert {finding.rule for finding in written.findings} >= {"one_sided_spectrum"}
    assert written.findings == ft.diagnose(written)
    assert run("capture", "--input", "train.npz", "--output", "bare").code == 0
    assert "findings" not in json.loads((folder / "bare" / "activation_report.json").read_text())


def test_a_capture_fails_on_what_it_is_told_to(run, folder):
    line = ["capture", "--input", "train.npz", "--output", "out", "--force"]
    assert run(*line, "--fail-on", "warning").code == 0
    result = run(*line, "--fail-on", "note", "--json")
    assert result.code == 1
    assert result.document["findings"][0]["report"] == "out/activation_report.json"
    assert result.document["reports"][0]["path"] == "out/activation_report.json"


def test_a_dry_run_cannot_be_diagnosed(run, folder):
    result = run("capture", "--input", "train.npz", "--dry-run", "--diagnose")
    assert (result.code, result.out) == (2, "")
    assert "--dry-run captures nothing" in result.err


def test_view_counts_what_was_found(run, folder):
    run("capture", "--input", "train.npz", "--output", "out", "--diagnose")
    assert "diagnosed: 8 notes" in run("view", "out").out
    run("capture", "--input", "train.npz", "--output", "out", "--force")
    assert "diagnosed" not in run("view", "out").out


def test_a_report_with_words_for_numbers_is_refused_in_one_line(run, healthy, tmp_path):
    document = json.loads(healthy.read_text())
    document["modules"][3]["stats"]["rms"] = "large"
    (tmp_path / "odd.json").write_text(json.dumps(document))
    result = run("diagnose", tmp_path / "odd.json")
    assert (result.code, result.out) == (2, "")
    assert (
        'odd.json: not a report of schema 1: modules[3].stats.rms is "large"; expected a number' in result.err
    )
    assert len(result.err.splitlines()) == 1


def test_names_cannot_command_the_terminal(run, tmp_path):
    record = example_records.change_module(example_records.healthy_record(), "blocks.1.local", rms=0.0)
    odd = replace(
        record,
        modules=tuple(
            replace(module, name="new\nline\u202e\x1b[31m") if module.name == "blocks.1.local" else module
            for module in record.modules
        ),
    )
    report.write(odd, tmp_path / "odd.json")
    out = run("diagnose", tmp_path / "odd.json").out
    assert "new line??[31m returns zero everywhere" in out
    assert out.isascii() or not any(letter in out for letter in "\u202e\x1b")


def test_reports_of_another_network_are_refused(run, healthy, folder):
    other = example_records.healthy_record()
    other = replace(other, modules=tuple(replace(m, name=f"net.{m.name}") for m in other.modules))
    report.write(other, folder / "other.json")
    for line in ([healthy, folder / "other.json"], [healthy, "--baseline", folder / "other.json"]):
        result = run("diagnose", *line)
        assert (result.code, result.out) == (2, "")
        assert "different networks: 0 layers are in both, 30 in one of them" in result.err


def test_reports_without_steps_are_taken_by_number_and_that_is_said(run, folder):
    for number in (9, 10, 100):
        report.write(example_records.healthy_record(), folder / "runs" / f"r{number}.json")
    result = run("diagnose", "runs")
    assert result.out.startswith("3 reports, from runs/r9.json to runs/r100.json")
    assert "these reports have no step" in result.err


def test_a_report_without_a_step_among_others_is_named(run, folder):
    for step in (0, 1):
        report.write(
            example_records.set_step(example_records.healthy_record(), step), folder / "runs" / f"{step}.json"
        )
    report.write(example_records.healthy_record(), folder / "runs" / "final.json")
    result = run("diagnose", "runs")
    assert result.code == 0
    assert "without a step, so not judged as a part of the series: final.json" in result.err
    assert "left out" in run("compare", "runs").out.splitlines()[0]


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_a_threshold_that_makes_no_sense_is_refused(run, healthy, tmp_path, value):
    (tmp_path / "limits.toml").write_text(f"[diagnose.dead_layer]\nnear_zero = {value}\n")
    result = run("diagnose", healthy, "--thresholds", tmp_path / "limits.toml")
    assert (result.code, result.out) == (2, "")
    assert "a finite number, 0 or more, was expected" in result.err


@pytest.mark.parametrize("shape", ["x", [1], {"a": 1}])
def test_a_report_with_a_shape_that_is_none_is_refused_in_one_line(run, healthy, tmp_path, shape):
    document = json.loads(healthy.read_text())
    for entry in (document["input"], document["modules"][3]):
        entry["shape"] = shape
    (tmp_path / "odd.json").write_text(json.dumps(document))
    result = run("diagnose", tmp_path / "odd.json")
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1


def test_a_quiet_capture_prints_what_is_wrong_and_nothing_else(run, folder):
    line = ["capture", "--input", "train.npz", "--output", "out", "--quiet", "--diagnose"]
    result = run(*line)
    assert (result.code, result.out, result.err) == (0, "", "")
    line = ["capture", "--model", "cli_networks:Silenced", "--input", "train.npz", "--output", "o", "--quiet"]
    result = run(*line, "--fail-on", "error")
    assert result.code == 1
    assert result.out == "error   conv returns zero everywhere  dead_layer\n"


def test_only_the_worst_causes_are_shown_where_a_number_is_given():
    findings = [
        ft.Finding(
            id=f"rule{number}",
            rule=f"rule{number}",
            severity="warning",
            layer=f"layer.{number}",
            step=None,
            report=None,
            message="is odd",
            evidence=FrozenMapping({"rms": 1.0}),
            advice="Look.",
        )
        for number in range(7)
    ]

    def lines(most):
        console = Console(file=io.StringIO(), width=100)
        console.print(*findings_view(findings, most=most), sep="\n")
        return console.file.getvalue().splitlines()

    few, everything = lines(5), lines(None)
    assert sum("is odd" in line for line in few) == 5
    assert few[-2:] == ["and 2 more findings: --all", "7 warnings"]
    assert sum("is odd" in line for line in everything) == 7
    assert not any("--all" in line for line in everything)


def test_all_findings_are_printed_on_request(run, broken):
    assert "--all" not in run("diagnose", broken, "--all").out


def test_what_was_not_judged_is_one_line_and_with_all_what_to_give(run, healthy):
    short = run("diagnose", healthy).out.splitlines()
    [line] = [line for line in short if "not applied" in line]
    assert line.endswith("; --all says what to give")
    assert "no baseline" in line and "no target" in line
    whole = run("diagnose", healthy, "--all").out
    assert "give a report from before it broke as --baseline" in whole
    assert "not applied" not in whole


def test_notes_are_printed_where_nothing_is_worse_or_with_all(run, broken, tmp_path):
    noted = example_records.change_module(
        ft.load_report(broken), "blocks.1.spectral", unused_weight_fraction=0.5
    )
    report.write(noted, tmp_path / "both.json")
    short = run("diagnose", tmp_path / "both.json").out
    assert "unused_modes" not in short
    assert "and 1 more finding: --all" in short
    assert "unused_modes" in run("diagnose", tmp_path / "both.json", "--all").out


def test_two_reports_of_the_same_weights_on_other_samples_may_be_a_test(run, captured, small):
    line = ("capture", "--input", "train.npz", "--output", "out", *small, "--max-samples", 2)
    assert run(*line, "--output-json-name", "b.json").code == 0
    noted = run("diagnose", "out").err
    assert "fno-telemetry diagnose out/activation_report.json --test out/b.json" in noted
    assert "same weights" not in run("diagnose", "out/activation_report.json").err
