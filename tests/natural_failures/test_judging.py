"""The judge of natural failures says what is named, where, and when; its two halves share nothing."""

import dataclasses
import math

import pytest

import fno_telemetry as ft
from benchmarks.natural_failures import corpus
from benchmarks.natural_failures.expectations import CAUSES
from benchmarks.natural_failures.judge import is_at, judge_failure, look_at_healthy, loud_causes
from benchmarks.natural_failures.kinds.known import KINDS
from benchmarks.natural_failures.runs import FAILING, SPIKES, Run, list_runs
from benchmarks.natural_failures.spikes import find_rise
from benchmarks.natural_failures.tables import put_between_marks
from benchmarks.natural_failures.tasks.known import TASKS
from fno_telemetry.diagnosis.installed_rules import load_rules
from fno_telemetry.records import FrozenMapping


def _finding(**changes: object) -> ft.Finding:
    plain = ft.Finding(
        id="input_scale:input",
        rule="input_scale",
        severity="warning",
        layer="input",
        step=None,
        report=None,
        message="has rms 1e4",
        evidence=FrozenMapping(),
        advice="Normalise as in training.",
    )
    return dataclasses.replace(plain, **changes)


def test_runs_that_choose_and_runs_that_judge_share_no_seed_and_some_tasks_only_judge():
    choose, judge = list_runs("choose"), list_runs("judge")

    assert not {run.seed for run in choose} & {run.seed for run in judge}
    set_aside = {task.name for task in TASKS.values() if task.set_aside}
    assert set_aside == {"vorticity", "seismic"}
    assert not set_aside & {run.task for run in choose}
    assert set_aside <= {run.task for run in judge}


@pytest.mark.parametrize("which", ["choose", "judge"])
def test_every_kind_of_failure_has_runs_of_its_own_and_a_healthy_one_beside_each(which):
    runs = list_runs(which)

    for kind in KINDS:
        most = FAILING * (1 if KINDS[kind].spike is None else SPIKES)
        assert 1 <= sum(run.what == kind for run in runs) <= most
    assert {run.plain for run in runs} <= set(runs)
    assert len({run.name for run in runs}) == len(runs)


def test_every_kind_refers_to_a_cause_that_is_known():
    assert {kind.cause for kind in KINDS.values()} == set(CAUSES)


def test_every_rule_that_a_cause_names_exists():
    known = {rule.name for rule in load_rules(None)[0]}

    assert {rule for cause in CAUSES.values() for rule in cause.rules} <= known


def test_a_note_names_nothing_and_a_rule_over_values_does_not_name_a_cause_elsewhere():
    cause = CAUSES["input scale"]

    assert cause.is_named_by(_finding())
    assert cause.is_named_by(_finding(rule="other", message="is probably not normalised"))
    assert not cause.is_named_by(_finding(severity="note"))
    assert not cause.is_named_by(_finding(rule="exploding_activations", message="grows by 1e4"))
    assert cause.is_served_by(_finding())
    assert not cause.is_served_by(_finding(advice="Lower the learning rate."))


def test_what_follows_from_another_finding_is_not_what_a_user_reads_first():
    first, second = _finding(), _finding(id="2", follows_from="input_scale:input")

    assert loud_causes([first, second, _finding(id="3", severity="note")]) == [first]


def test_places_are_outer_tensors_the_model_or_layers():
    assert is_at("input", ("input",))
    assert not is_at("output", ("input", ".*"))
    assert is_at(None, ("model",))
    assert not is_at(None, ("output", ".*"))
    assert is_at("fno_blocks.0.spectral", ("^fno_blocks",))
    assert not is_at("lifter.conv1", ("^fno_blocks",))


def test_a_loss_has_risen_when_three_in_a_row_are_half_as_large_again_as_the_median_before():
    before = [1.0, 1.2, 0.9, 1.1, 1.0]

    assert find_rise([*before, 1.3, 9.0, 1.4, 1.2, 1.7, 3.0, 2.0], 5) == 9
    assert find_rise([*before, 1.1, math.nan, math.nan], 5) == 6
    assert find_rise([*before, 9.0, 1.0, 1.0], 5) is None


def test_a_run_is_kept_and_judged_beside_its_healthy_one(tmp_path, monkeypatch):
    """A network of one dimension is trained for a few steps: what is kept is what the judge reads."""
    healthy_set_up = corpus.set_up

    def set_up(run, folder):
        setup, places = healthy_set_up(run, folder)
        setup.steps = 4
        return setup, places

    monkeypatch.setattr(corpus, "set_up", set_up)
    run = Run("input of 1e4", "burgers", "written", 0)
    lines = [corpus.make(each, tmp_path, again=False) for each in (run.plain, run)]
    assert not any("FAILED" in line for line in lines), lines
    plain, failure = corpus.read([run.plain, run], tmp_path)
    before = ft.load_report(failure.folder / "trained.json")

    outcome, looks = judge_failure(failure, plain), look_at_healthy(plain, plain)

    assert outcome.verdicts.keys() == {"report", "baseline", "history", "test"}
    assert outcome.verdicts["baseline"].named
    assert outcome.verdicts["baseline"].advised
    assert outcome.verdicts["baseline"].placed
    assert {look.is_series for look in looks} == {True, False}
    assert "FAILED" not in corpus.make(run, tmp_path, again=True)
    assert ft.load_report(failure.folder / "trained.json").modules == before.modules


def test_tables_replace_only_what_is_between_the_marks(tmp_path):
    document = tmp_path / "diagnosis.md"
    document.write_text("a\n<!-- natural failures: begin -->\nold\n<!-- natural failures: end -->\nb\n")

    put_between_marks("new", document)

    assert document.read_text() == (
        "a\n<!-- natural failures: begin -->\nnew\n<!-- natural failures: end -->\nb\n"
    )
    document.write_text("no marks")
    with pytest.raises(SystemExit, match="does not have the marks"):
        put_between_marks("new", document)
