"""What an offline run holds, read back from its own log."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fno_telemetry import keys, report
from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.records import FrozenMapping
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.rows import depth_rows, model_scalars, row
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support import wandb_surroundings

run_wandb = wandb_surroundings.run_wandb

LAYERS = 9
"""Layers of the example that have a role in the operator."""


def capture(folder: Path, *records, experiment: str = "demo", ok: bool = True, **options) -> list[str]:
    """Write the records offline, and let W&B's process end, before which the log may not be whole."""
    import wandb

    sink = WandbRun(mode="offline", **options)
    sink.open(RunContext(folder, experiment=experiment))
    for record in records:
        sink.write(record)
    lines = sink.close(ok)
    wandb.teardown()
    return lines


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"), key=lambda run: run.stat().st_mtime_ns)


def read_reports(run: Path) -> list[Any]:
    """The artifacts that are reports: a table is an artifact too."""
    artifacts = [entry.artifact for entry in log.read_log(run) if entry.HasField("artifact")]
    return [artifact for artifact in artifacts if artifact.type == "activation-report"]


def expected_row(record) -> dict[str, object]:
    """The row as the log has it: histograms in parts."""
    made = row(record)
    values: dict[str, object] = dict(made.scalars)
    for key, (counts, edges) in made.histograms.items():
        values |= {f"{key}._type": "histogram", f"{key}.values": counts, f"{key}.bins": edges}
    return values


def test_every_checkpoint_is_a_row_of_one_run_and_no_number_changes(alone, record, examples):
    records = [examples.at_step(record, step) for step in (1000, 3000, 2000)]
    capture(alone, *records)
    [run] = runs(alone)
    # W&B's own step only counts rows, so that one captured later is not dropped.
    assert [{**expected_row(each), "_step": i} for i, each in enumerate(records)] == log.read_rows(run)
    assert log.exit_code(run) == 0


def test_each_statistic_has_one_glob_over_the_checkpoints_step(alone, record):
    capture(alone, record)
    [run] = runs(alone)
    metrics = log.read_metrics(run)
    made = row(record)
    of_layers = [key for key in (*made.scalars, *made.histograms) if "/" in key and "/accuracy" not in key]
    statistics = {key.partition("/")[0] for key in of_layers}
    assert len(statistics) == 13
    # The last value of each layer is kept out of the summary, and that of the accuracy is not.
    expected = {f"{name}/*": ("checkpoint_step", True) for name in statistics}
    expected["relative_l2/accuracy"] = ("checkpoint_step", False)
    expected |= dict.fromkeys(model_scalars(record), ("checkpoint_step", False))
    # W&B adds the step metric itself.
    assert expected == {name: found for name, found in metrics.items() if name != "checkpoint_step"}


def test_the_summary_has_the_numbers_of_the_whole_model_and_none_of_a_layer(alone, record, examples):
    capture(alone, record, examples.at_step(record, 2000))
    [run] = runs(alone)
    summary = log.read_summary(run)
    expected = model_scalars(record) | {"n_parameters": 656_002, "n_modules": 20, "n_samples": 4}
    assert expected | {"checkpoint_step": 2000} == {
        name: value for name, value in summary.items() if name.isidentifier() and not name.startswith("_")
    }
    assert {name.partition(".")[0] for name in summary if "/" in name} == {
        "layers/table",
        "relative_l2/accuracy",
    }


def test_the_config_is_the_records_and_holds_nothing_of_the_machine(alone, record, monkeypatch):
    told = {"WANDB_HOST": "told-host", "WANDB_PROGRAM": "told-program", "WANDB_USERNAME": "told-user"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    capture(alone, record)
    [run] = runs(alone)
    config = log.read_config(run)
    assert config["architecture"] == "CascadedFNOGenerator"
    assert config["provenance"] == {"versions": {"torch": "2.13.0", "numpy": "2.4.6"}, "seed": None}
    [start] = [entry.run for entry in log.read_log(run) if entry.HasField("run")]
    assert (start.project, start.run_group, start.job_type) == ("fno-telemetry", "demo", "fno-telemetry")
    assert (start.display_name, start.host) == ("demo", "")
    content = next(run.glob("*.wandb")).read_bytes()
    assert not [value for value in told.values() if value.encode() in content]


def test_every_report_is_a_version_of_one_artifact(alone, record, examples):
    later = examples.at_step(record, 2000)
    capture(alone, record, later)
    [run] = runs(alone)
    artifacts = read_reports(run)
    assert [sorted(a.aliases) for a in artifacts] == [["latest", "step-1000"], ["latest", "step-2000"]]
    assert len({a.name for a in artifacts}) == 1
    for artifact, expected in zip(artifacts, (record, later), strict=True):
        [entry] = artifact.manifest.contents
        assert (artifact.type, entry.path) == ("activation-report", "activation_report.json")
        assert Path(entry.local_path).is_relative_to(run)
        assert report.load_report(entry.local_path) == expected


def test_a_long_training_keeps_a_hundred_reports_at_most(alone, record, examples, monkeypatch):
    monkeypatch.setattr("fno_telemetry.sinks.wandb.feed.Feed.write_row", lambda *_: None)
    capture(alone, *[examples.at_step(examples.without(record, *"ab"), step) for step in range(103)])
    [run] = runs(alone)
    artifacts = read_reports(run)
    assert [f"step-{step}" for step in range(3, 103)] == [sorted(a.aliases)[-1] for a in artifacts]
    assert len(list(run.rglob("activation_report.*.json"))) == 100


def test_files_go_under_the_folder_of_the_capture_and_nowhere_else(alone, record):
    (alone / ".wandb").mkdir()  # which W&B would take
    capture(alone, record)
    assert sorted(path.name for path in alone.iterdir()) == [".wandb", "wandb"]
    assert not list((alone / ".wandb").iterdir())
    [run] = (alone / "wandb").iterdir()
    assert run.name.startswith("offline-run-")
    written = [path for path in (alone.parent / "home").rglob("*") if path.is_file()]
    assert all(path.suffix == ".log" for path in written), written


def test_the_lines_show_the_run_and_how_to_upload_it(alone, record):
    lines = capture(alone, record)
    [run] = runs(alone)
    path = shlex.quote(str(run))
    assert lines == [
        "W&B is offline, as requested.",
        f"wandb leet {path}",
        f"to upload it: wandb sync {path}",
    ]
    shown = run_wandb(alone.parent, f"wandb leet inspect --summary {path}")
    assert "demo" in shown
    assert "output_sample_variation" in shown


def test_a_run_that_failed_says_so(alone, record):
    capture(alone, record, ok=False)
    assert log.exit_code(runs(alone)[0]) == 1


def test_a_record_without_a_step_gets_a_run_of_its_own_with_a_depth_profile(alone, record, examples):
    untrained = examples.at_step(record, None)
    lines = capture(alone, untrained)
    [run] = runs(alone)
    first, *profile = log.read_rows(run)
    assert {**expected_row(untrained), "_step": 0} == first
    assert [{**each, "_step": i + 1} for i, each in enumerate(depth_rows(untrained))] == profile
    metrics = log.read_metrics(run)
    assert metrics["depth/*"] == ("depth", True)
    assert metrics["histogram/*"] == ("", True)
    assert metrics["rms/*"] == ("", True)
    assert "depth" not in log.read_summary(run)
    assert len(lines) == 3


def test_the_layout_per_checkpoint_has_a_run_for_each_in_one_group(alone, record, examples):
    lines = capture(alone, record, examples.at_step(record, 2000), layout="per-checkpoint", group="sweep 7")
    found = []
    for run in runs(alone):
        [start] = [entry.run for entry in log.read_log(run) if entry.HasField("run")]
        found.append((start.display_name, start.run_group, len(log.read_rows(run)), log.exit_code(run)))
        assert log.read_config(run)["provenance"]["overhead"]
    rows = 1 + LAYERS
    assert found == [("demo step 1000", "sweep 7", rows, 0), ("demo step 2000", "sweep 7", rows, 0)]
    path = shlex.quote(str(alone / "wandb"))
    assert lines[1:] == [f"wandb leet {path}", f"to upload them: wandb sync {path}/offline-run-*"]


def test_a_record_without_a_step_does_not_disturb_the_run_of_those_with_one(alone, record, examples):
    capture(alone, *[examples.at_step(record, step) for step in (1000, None, 2000)])
    steps = [[row.get("checkpoint_step") for row in log.read_rows(run)] for run in runs(alone)]
    assert sorted(steps, key=len) == [[1000, 2000], [None] * (1 + LAYERS)]


def test_a_run_id_is_the_experiments(alone, record, examples):
    def ids(folder: Path) -> list[str]:
        return [next(run.glob("*.wandb")).stem.removeprefix("run-") for run in runs(folder)]

    for name in ("a", "b", "out"):
        (alone / name).mkdir()
    capture(alone / "a", record, experiment="Größe 1/2")
    capture(alone / "a", examples.at_step(record, 2000), experiment="Größe 1/2")
    capture(alone / "b", record, experiment="Größe 1/2")
    capture(alone / "b", record, experiment="Größe 1_2")
    same, again, elsewhere, other = ids(alone / "a") + ids(alone / "b")
    assert same == again == elsewhere != other
    assert same.isascii()
    assert same.replace("-", "").isalnum()
    # Folders of the same name are different experiments unless one is named.
    capture(alone, record, experiment="")
    capture(alone / "out", record, experiment="out")
    assert len({*ids(alone), *ids(alone / "out")}) == 2


def test_the_same_sink_opens_and_closes_again(alone, record, examples):
    sink = WandbRun(mode="offline")
    for step in (1000, 2000):
        sink.open(RunContext(alone, experiment="demo"))
        sink.write(examples.at_step(record, step))
        assert sink.close(ok=True)
        assert sink.close(ok=True) == []
    assert len(runs(alone)) == 2


def test_opening_and_closing_alone_leaves_nothing_behind(alone, record):
    assert capture(alone) == []
    assert not list(alone.iterdir())


def test_a_folder_that_cannot_be_written_is_refused_before_the_capture(alone):
    (alone / "wandb").write_text("a file")
    with pytest.raises(SinkUnavailable, match="is not a folder"):
        WandbRun(mode="offline").open(RunContext(alone))
    with pytest.raises(SinkUnavailable, match="not open"):
        WandbRun().flush()


def test_disabled_writes_nothing_and_says_so(alone, record, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    sink = WandbRun()
    sink.open(RunContext(alone))
    sink.write(record)
    sink.flush()
    assert sink.close(ok=True) == ["W&B is disabled, because WANDB_MODE says so.", "W&B wrote nothing."]
    assert not list(alone.iterdir())


def test_what_was_flushed_survives_a_kill_of_everything(alone, record, run_program):
    done = run_program(
        f"""
import os, signal, subprocess
sink = WandbRun(mode="offline")
sink.open(ft.RunContext(Path({str(alone)!r}), experiment="demo"))
sink.write(record)
sink.flush()
os.killpg(os.getpgid(0), signal.SIGKILL)
""",
        anew=True,
    )
    assert done.returncode == -9
    [run] = runs(alone)
    assert {**expected_row(record), "_step": 0} == log.read_rows(run)[0]


def test_a_live_run_of_the_caller_is_neither_used_nor_ended(alone, record):
    import wandb

    mine = wandb.init(mode="offline", dir=alone.parent, settings=wandb.Settings(console="off", silent=True))
    mine.log({"loss": 1.0})
    sink = WandbRun(mode="offline")
    sink.open(RunContext(alone))
    sink.write(record)
    sink.close(ok=True)
    assert wandb.run is mine
    mine.log({"loss": 0.5})
    folder = Path(mine.sync_dir)
    mine.finish()
    wandb.teardown()
    assert log.read_rows(folder) == [{"loss": 1, "_step": 0}, {"loss": 0.5, "_step": 1}]
    assert len(runs(alone)) == 1


def test_nothing_is_printed(alone, record, capfd):
    capture(alone, record)
    assert capfd.readouterr() == ("", "")


def test_a_statistic_with_an_asterisk_is_kept_without_a_glob(alone, record, examples):
    capture(alone, examples.with_stats(record, "lifter", **{"p*q": 0.5}))
    [run] = runs(alone)
    assert log.read_rows(run)[0]["p*q/lifter"] == 0.5


def test_redacted_records_leave_no_path_but_that_of_the_report_itself(alone, record):
    # The log of an offline run says where the file to upload is; the server is not told.
    redacted = replace(record, provenance=FrozenMapping({"versions": FrozenMapping({"torch": "2"})}))
    capture(alone, redacted)
    [run] = runs(alone)
    for entry in log.read_log(run):
        if not entry.HasField("artifact"):
            assert os.fsencode(alone) not in entry.SerializeToString()
    assert json.dumps(log.read_config(run)["provenance"]) == '{"versions": {"torch": "2"}}'
    assert keys.key("rms", "lifter") in log.read_rows(run)[0]


def test_a_log_that_a_kill_cut_off_can_be_read_up_to_there(alone, record, examples):
    capture(alone, record, examples.at_step(record, 2000))
    [run] = runs(alone)
    whole = log.read_rows(run)
    [file] = run.glob("*.wandb")
    content = file.read_bytes()
    lengths = (len(content) // 8, len(content) // 2, len(content) - 1)
    rows = []
    for length in lengths:
        file.write_bytes(content[:length])
        rows.append(log.read_rows(run))
    assert rows == [whole[: len(each)] for each in rows]
    assert len(rows[0]) < len(rows[-1]) == 2


def test_a_folder_without_runs_has_no_numbers(tmp_path):
    assert WandbRun(mode="offline").read_back(tmp_path) == {}
