"""`compare` says what changed, and its exit code whether that is worse."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry_cli.app import main


@pytest.fixture(scope="module")
def pair(samples, small, tmp_path_factory) -> Path:
    """Captures of the same samples, with weights of two seeds, in the folders seed0 and seed1."""
    made = tmp_path_factory.mktemp("pair")
    for seed in ("0", "1"):
        target = ("--output", str(made / f"seed{seed}"), "--seed", seed)
        with pytest.raises(SystemExit) as end:
            main(["capture", "-q", "--input", str(samples), *target, *small])
        assert end.value.code == 0
    return made


@pytest.fixture
def reports(folder, pair) -> tuple[Path, Path]:
    """The two reports, for this test to change."""
    made = [Path(shutil.copytree(pair / name, folder / name)) for name in ("seed0", "seed1")]
    return made[0] / "activation_report.json", made[1] / "activation_report.json"


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
        (("{0}", "missing"), "missing: no such file or folder; check the path"),
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


@pytest.fixture
def deep(reports) -> tuple[Path, Path]:
    """Two reports of thirty layers, of which all changed: the third most, the last two for the worse."""
    before = json.loads(reports[0].read_text())
    layer = next(entry for entry in before["modules"] if entry["name"] == "fno_blocks.0.spectral")
    before["modules"] = [
        layer | {"name": f"layers.{index}", "order": index, "stats": layer["stats"] | {"rms": 1 + index}}
        for index in range(30)
    ]
    before["blocks"] = []
    after = json.loads(json.dumps(before))
    for index, entry in enumerate(after["modules"]):
        entry["stats"]["negative_fraction"] = layer["stats"]["negative_fraction"] / 2
        counts = entry["log_histogram"]["counts"]
        if index == 3:
            entry["log_histogram"]["counts"] = [*counts[8:], *counts[:8]]
        if index > 27:
            entry["stats"]["sample_variation"] = 1e-6
    paths = (reports[0].with_name("deep.json"), reports[1].with_name("deep.json"))
    for path, document in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(document))
    return paths


def listed(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("layers.")]


def test_of_many_changed_layers_those_are_listed_that_matter_most(run, deep):
    text = run("compare", *deep).out
    names = listed(text)
    assert len(names) == 12
    assert names == sorted(names, key=lambda name: int(name.removeprefix("layers.")))
    assert {"layers.0", "layers.3", "layers.28", "layers.29"} <= {*names}
    assert "18 more layers changed; --all shows them" in text
    assert listed(run("compare", *deep, "--all").out) == [f"layers.{index}" for index in range(30)]
    assert "--all" not in run("compare", *deep, "--all").out
    assert len(run("compare", *deep, "--json").document["modules"]) == 30


def test_a_layer_and_the_last_one_inside_it_are_one_row(run, reports):
    document = json.loads(reports[0].read_text())
    for entry in document["modules"]:
        if entry["name"] in ("lifter.conv2", "lifter"):
            entry["stats"]["sample_variation"] = 1e-6
    worse = reports[0].with_name("worse.json")
    worse.write_text(json.dumps(document))

    def rows(*options: str) -> list[str]:
        lines = run("compare", reports[0], worse, *options).out.splitlines()
        return [line.split()[0] for line in lines if line.startswith("lifter")]

    text = run("compare", reports[0], worse).out
    assert text.startswith("worse: in lifter.conv2, ") and "first layer that differs" not in text
    assert rows() == ["lifter.conv2"]
    assert "not listed again, with the tensor of an earlier layer: lifter" in text
    assert rows("--all") == ["lifter.conv2", "lifter"]
    modules = run("compare", reports[0], worse, "--json").document["modules"]
    same = {layer["name"]: layer["same_as"] for layer in modules}
    assert (same["lifter"], same["lifter.conv2"]) == ("lifter.conv2", None)


def test_a_block_and_its_module_are_one_row(run, reports):
    worse = json.loads(reports[0].read_text())
    for entry in worse["blocks"]:
        entry["stats"]["update_ratio"] = 1e-6
    worse["modules"][-1]["stats"]["negative_fraction"] += 0.1
    path = reports[0].with_name("worse.json")
    path.write_text(json.dumps(worse))
    rows = [line.split()[0] for line in run("compare", reports[0], path).out.splitlines() if line.split()]
    names = [entry["name"] for entry in worse["blocks"]]
    assert [row for row in rows if row in names] == names


@pytest.mark.parametrize("columns", [60, 80])
def test_no_line_of_a_comparison_is_wider_than_the_terminal(run, reports, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("compare", *reports).out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert ("no room at this width for: PSI, spectrum" in lines) == (columns < 80)


def runs_of_two_steps(reports: tuple[Path, Path]) -> None:
    """Write folders `well` and `ill` with the steps 0 and 10; the second run ends with dead channels."""
    for name, last in (("well", 0.0), ("ill", 1.0)):
        for step, dead in ((0, 0.0), (10, last)):
            record = ft.load_report(reports[0])
            layer = record.modules[3]
            sick = replace(layer, stats=type(layer.stats)({**layer.stats, "dead_channel_fraction": dead}))
            modules = tuple(sick if module is layer else module for module in record.modules)
            summary = {**record.summary, "checkpoint_step": step, "step_kind": "step"}
            changed = replace(record, modules=modules, summary=type(record.summary)(summary))
            report.write(changed, Path(name, f"activation_report.step{step}.json"))


def test_a_run_of_a_group_is_the_last_step_of_its_folder(run, reports):
    runs_of_two_steps(reports)
    result = run("compare", "--group", "well", "ill")
    assert result.code == 1
    assert result.out.startswith("1 of 1 runs are worse than the baseline")
    assert run("compare", "--group", "well", "well").code == 0


@pytest.mark.parametrize("command", ["compare", "diagnose"])
def test_two_runs_are_not_taken_as_one(run, reports, command):
    runs_of_two_steps(reports)
    result = run(command, "well", "ill")
    assert (result.code, result.out) == (2, "")
    assert "are both of step 0, so they are of two runs" in result.err
    assert "compare --group" in result.err
