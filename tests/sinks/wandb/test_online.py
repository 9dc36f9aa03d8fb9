"""What reaches the server, which a stand-in on loopback plays, and what `wandb sync` sends it later."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.rows import model_scalars, row
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_stand_in, wandb_surroundings
from support.sink_runs import write_records

KEY = wandb_stand_in.API_KEY
run_wandb = wandb_surroundings.run_wandb


def capture(folder: Path, *records, **options) -> list[str]:
    return write_records(WandbRun(**options), RunContext(folder, experiment="demo"), *records)


def expected_rows(*records) -> list[dict[str, Any]]:
    """The rows of these records, histograms as the server takes them."""
    rows = []
    for record in records:
        made = row(record)
        histograms = {
            key: {"_type": "histogram", "values": counts, "bins": edges}
            for key, (counts, edges) in made.histograms.items()
        }
        rows.append({**made.scalars, **histograms})
    return rows


def seen_rows(run) -> list[dict[str, Any]]:
    added = {"_step", "_runtime", "_timestamp"}
    return [{key: value for key, value in each.items() if key not in added} for each in run.record_rows]


def test_rows_histograms_and_reports_reach_the_server(server, alone, record, examples, capfd):
    records = [examples.at_step(record, step) for step in (1000, 2000)]
    lines = capture(alone, *records, project="neural operators", entity="lab")
    [(name, run)] = server.runs.items()
    assert expected_rows(*records) == seen_rows(run)
    project = f"{server.url}/lab/neural%20operators"
    assert lines == [f"W&B run: {project}/runs/{name}", f"W&B project: {project}"]
    assert (run.project, run.fields["groupName"], run.exit_code) == ("neural operators", "demo", 0)
    assert run.config["provenance"]["value"]["versions"]["torch"] == "2.13.0"
    assert model_scalars(record).items() <= run.summary.items()
    assert run.summary["n_parameters"] == 656_002
    assert [each.aliases for each in server.reports] == [["latest", "step-1000"], ["latest", "step-2000"]]
    for artifact, expected in zip(server.reports, records, strict=True):
        assert (artifact.type, artifact.committed) == ("activation-report", True)
        document = json.loads(artifact.files["activation_report.json"])
        assert document["summary"]["checkpoint_step"] == expected.step
    assert server.unknown == []
    assert capfd.readouterr().out == ""


def test_a_later_capture_of_the_experiment_goes_on_in_its_run(server, alone, record, examples):
    records = [examples.at_step(record, step) for step in (3000, 1000)]
    for each in records:
        assert capture(alone, each)[0].startswith("W&B run: ")
    [run] = server.runs.values()
    assert run.starts == 2
    assert expected_rows(*records) == seen_rows(run)


def test_runs_of_single_checkpoints_are_shown_as_their_group(server, alone, record, examples):
    records = [examples.at_step(record, step) for step in (1000, 2000, None)]
    [line] = capture(alone, *records, layout="per-checkpoint")
    assert line == f"W&B: 3 runs in group 'demo': {server.url}/stand-in/fno-telemetry"
    names = [run.fields["displayName"] for run in server.runs.values()]
    assert names == ["demo step 1000", "demo step 2000", "demo checkpoint"]
    for run, each in zip(server.runs.values(), records, strict=True):
        assert expected_rows(each) == seen_rows(run)[:1]
        with_role = [module for module in each.modules if module.role not in ("other", "norm", "activation")]
        assert [*range(len(with_role))] == [row["depth"] for row in run.record_rows[1:]]


@dataclass(frozen=True)
class Redacted(RunContext):
    """What the run is like when the user asks for no paths."""

    redact: bool = True


def test_of_a_redacted_capture_the_server_is_told_nothing_of_the_machine(server, alone, record, monkeypatch):
    for name in ("HOST", "PROGRAM", "USERNAME", "EMAIL"):
        monkeypatch.setenv(f"WANDB_{name}", f"told-{name.lower()}")
    for mode in ("online", "offline"):
        sink = WandbRun(mode=mode)
        sink.open(Redacted(alone / "a [folder]", experiment=mode))
        sink.write(record)
        lines = sink.close(ok=True)
    everything = b"\n".join(server.received)
    for path in (alone, Path(sys.executable).parent, Path.cwd()):
        assert str(path).encode() not in everything
    # `wandb sync` itself tells which program it is, but nothing of the run's.
    run_wandb(alone.parent, lines[-1].partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert len(server.runs) == 2
    for run in server.runs.values():
        assert json.loads(run.files["activation_report.0.json"])["summary"]["checkpoint_step"] == 1000
    everything = b"\n".join(server.received)
    assert not re.findall(rb"told-\w+", everything)
    assert str(alone).encode() not in everything


def test_an_offline_run_can_be_uploaded_by_the_line_that_says_so(server, alone, record, examples):
    lines = [capture(alone, examples.at_step(record, step), mode="offline") for step in (1000, 2000)]
    assert server.runs == {}
    import wandb

    wandb.teardown()
    for each in lines:
        run_wandb(alone.parent, each[-1].partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    [run] = server.runs.values()
    assert expected_rows(record, examples.at_step(record, 2000)) == seen_rows(run)
    assert [each.aliases for each in server.reports] == [["latest", "step-1000"], ["latest", "step-2000"]]
    assert all(each.committed for each in server.reports)


def test_a_key_in_netrc_is_found(server, alone, record, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    host = server.url.removeprefix("http://")
    netrc = alone.parent / "home" / ".netrc"
    netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    netrc.chmod(0o600)
    assert capture(alone, record)[0].startswith(f"W&B run: {server.url}")


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [
        ("offline", "online", "W&B is offline, as requested."),
        (None, "offline", "W&B is offline, because WANDB_MODE says so."),
        (None, "dryrun", "W&B is offline, because WANDB_MODE says so."),
        ("disabled", "online", "W&B is disabled, as requested."),
        ("online", "offline", "W&B run: "),
        (None, "run", "W&B run: "),
    ],
)
def test_the_option_wins_over_the_variable_which_wins_over_credentials(
    server, alone, record, monkeypatch, option, variable, expected
):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert capture(alone, record, mode=option)[0].startswith(expected)
    assert bool(server.runs) == (expected == "W&B run: ")


def test_the_mode_of_a_settings_file_is_respected(server, alone, record):
    settings = alone.parent / "home" / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text("[default]\nmode = offline\n")
    assert capture(alone, record)[0] == "W&B is offline, because its settings file says so."
