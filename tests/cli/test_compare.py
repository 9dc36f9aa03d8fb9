"""`compare` says what changed, and its exit code whether that is worse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def reports(run, folder) -> tuple[Path, Path]:
    """Two captures of the same samples, with weights of two seeds."""
    made = []
    for seed in ("0", "1"):
        target = folder / f"seed{seed}"
        small = ("--set", "hidden_channels=4", "--set", "modes=3", "--seed", seed)
        assert run("capture", "--input", "train.npz", "--output", target, *small).code == 0
        made.append(target / "activation_report.json")
    return made[0], made[1]


def damaged(report: Path, **stats: object) -> Path:
    """A copy of a report in which one layer has other statistics."""
    document = json.loads(report.read_text())
    layer = next(entry for entry in document["modules"] if entry["role"] == "lifting")
    layer["stats"] |= stats
    copy = report.with_name("damaged.json")
    copy.write_text(json.dumps(document))
    return copy


def test_a_report_against_itself_is_the_same_and_exits_0(run, reports):
    result = run("compare", reports[0], reports[0])
    assert (result.code, "the same" in result.out) == (0, True)


def test_other_weights_are_different_not_worse(run, reports):
    result = run("compare", *reports, "--json")
    document = json.loads(result.out)
    assert result.code == 0
    assert document["worse"] is False
    assert document["first_diverging"] is not None
    assert run("compare", *reports, "--fail-on", "note").code == 1


def test_a_collapse_exits_1_and_names_the_layer(run, reports):
    worse = damaged(reports[0], sample_variation=1e-6)
    result = run("compare", reports[0], worse)
    assert result.code == 1
    assert "worse: in lifter, " in result.out
    assert run("compare", reports[0], worse, "--fail-on", "never").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{0}",), "at least two"),
        (("{0}", "missing.json"), "missing.json"),
        (("{0}", "{1}", "--fail-on", "bad"), "--fail-on"),
        (("{0}", "{1}", "--thresholds", "none.toml"), "none.toml"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, reports, arguments, told):
    result = run("compare", *(argument.format(*reports) for argument in arguments))
    assert result.code == 2
    assert told in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_folder_of_reports_is_a_series(run, reports):
    folder = reports[0].parent
    for step in (10, 20, 30):
        document = json.loads(reports[0].read_text())
        document["summary"] |= {"checkpoint_step": step, "step_kind": "step"}
        if step == 30:
            for entry in document["modules"]:
                entry["stats"]["sample_variation"] = 1e-7
        (folder / f"activation_report.step{step}.json").write_text(json.dumps(document))
    reports[0].unlink()
    result = run("compare", folder, "--json")
    assert result.code == 1
    assert json.loads(result.out)["break_step"] == 30


PROGRAM = """
import sys
from fno_telemetry_cli.app import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules)
"""


def test_comparing_reports_loads_no_torch(reports):
    line = [sys.executable, "-c", PROGRAM, "compare", str(reports[0]), str(reports[1]), "-q"]
    verdict, loaded = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    assert verdict.startswith("different, not worse")
    assert not {"torch", "tensorboard", "wandb"} & set(loaded.split())
