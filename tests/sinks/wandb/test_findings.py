"""What W&B gets of findings, online, offline and in a caller's run; nothing where nobody looked for any."""

import csv
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.findings_table import COLUMNS, Alert, alert, make_table, table_rows
from fno_telemetry.sinks.wandb.rows import row
from fno_telemetry.sinks.wandb.sink import WandbRun
from fno_telemetry.sinks.wandb.workspace import sections_of
from support import wandb_log as log
from support import wandb_stand_in, wandb_surroundings
from support.sink_runs import write_records

run_wandb = wandb_surroundings.run_wandb
KEY = wandb_stand_in.API_KEY

EXPECTED = [
    [1000, "error", "dead_layer", "dead", "dead_layer | <b> of `dead`", None],
    [
        1000,
        "warning",
        "input_independent",
        "heads[0]",
        "input_independent | <b> of `heads[0]`",
        "dead_layer:dead",
    ],
    [1000, "note", "unused_modes", None, "unused_modes | <b> of `None`", None],
]
"""The rows of the diagnosed example, without evidence and advice, which are the same in all of them."""


@pytest.fixture
def found(record: CaptureRecord, examples: SimpleNamespace) -> CaptureRecord:
    return examples.add_findings(record)


def capture(folder: Path, *records, redact: bool = False, **options) -> list[str]:
    return write_records(WandbRun(**options), RunContext(folder, experiment="demo", redact=redact), *records)


def at_step(record: CaptureRecord, examples: SimpleNamespace, step: int) -> CaptureRecord:
    findings = record.findings and tuple(replace(each, step=step) for each in record.findings)
    return replace(examples.at_step(record, step), findings=findings)


def tables(server) -> list[dict[str, Any]]:
    """The tables of findings that reached the server as artifacts."""
    logged = [artifact for artifact in server.artifacts if artifact.type == "run_table"]
    assert all(artifact.committed for artifact in logged)
    files = [item for artifact in logged for item in artifact.files.items()]
    return [json.loads(content) for name, content in files if name.startswith("findings/")]


def test_the_table_has_a_row_for_each_finding(found):
    rows = table_rows(found)
    assert [[*each[:5], each[7]] for each in rows] == EXPECTED
    assert {(each[5], each[6]) for each in rows} == {("rms = 0, count = 3, where = x", "Look at it.")}
    assert table_rows(replace(found, findings=None)) == table_rows(replace(found, findings=())) == []


def test_a_csv_file_holds_the_same_rows_whatever_is_in_them(found, examples):
    awkward = replace(found.findings[0], layer=examples.AWKWARD, message='a,"b"\ud800\nc', step=None)
    rows = table_rows(replace(found, findings=(awkward, *found.findings[1:])))
    assert rows[0][4] == 'a,"b"\\ud800 c'
    assert rows[0][0] == 1000
    header, *read = csv.reader(io.StringIO(make_table(rows).as_csv().decode(), newline=""))
    assert tuple(header) == COLUMNS
    assert read == [["" if cell is None else str(cell) for cell in each] for each in rows]


def test_counts_are_in_each_row_that_was_diagnosed_and_the_table_comes_once_at_the_end(
    server, alone, record, found, examples
):
    undiagnosed, nothing = examples.at_step(record, 500), replace(examples.at_step(record, 3000), findings=())
    capture(alone, undiagnosed, found, at_step(found, examples, 2000), nothing)
    [run] = server.runs.values()
    counts = [
        [each.get(f"findings/{severity}") for severity in ("error", "warning", "note")] for each in run.rows
    ]
    # The table of layers has the last row.
    assert counts == [[None] * 3, [1, 0, 1], [1, 0, 1], [0, 0, 0], [None] * 3, [None] * 3]
    assert ["findings/table" in each for each in run.rows] == [False] * 4 + [True, False]
    # The last row has none, but the run has.
    assert [run.summary[f"findings/{severity}"] for severity in ("error", "warning", "note")] == [2, 0, 2]
    [table] = tables(server)
    assert tuple(table["columns"]) == COLUMNS
    assert [[*each[:5], each[7]] for each in table["data"]] == [
        *EXPECTED,
        *([2000, *each[1:]] for each in EXPECTED),
    ]
    # The file that is shown, beside the artifact.
    shown = run.summary["findings/table"]
    assert json.loads(run.files[shown["path"]])["data"] == table["data"]
    assert shown["nrows"] == 6
    assert server.unknown == []


def test_the_counts_are_drawn_over_the_checkpoints_step(alone, found):
    import wandb

    capture(alone, found, mode="offline")
    wandb.teardown()
    [run] = (alone / "wandb").iterdir()
    assert log.read_metrics(run)["findings/*"] == ("checkpoint_step", False)


def test_a_saved_workspace_shows_the_counts_after_what_comes_first(found, record):
    sections, _ = sections_of([record, found])
    assert sections["findings"] == ["findings/error", "findings/warning", "findings/note"]
    assert "findings" not in sections_of([record])[0]
    first = ["whole model", "low_frequency_fraction", "spectral_share", "findings", "update_ratio"]
    assert list(sections_of([found])[0])[:5] == first


def test_where_nobody_looked_or_nothing_was_found_there_is_no_table(server, alone, record):
    assert not [key for key in row(record).scalars if key.startswith("findings")]
    capture(alone, record)
    capture(alone, replace(record, findings=()), layout="per-checkpoint")
    undiagnosed, nothing = server.runs.values()
    assert not [key for key in (*undiagnosed.rows[0], *undiagnosed.summary) if "findings" in key]
    assert nothing.rows[0]["findings/error"] == 0
    assert tables(server) == []


def test_a_run_for_each_checkpoint_has_its_own_table(server, alone, found, examples):
    capture(alone, found, at_step(found, examples, 2000), layout="per-checkpoint")
    assert [{each[0] for each in table["data"]} for table in tables(server)] == [{1000}, {2000}]
    assert len(server.runs) == 2


def test_the_table_is_bounded_and_keeps_the_latest(server, alone, found, examples, monkeypatch):
    monkeypatch.setattr("fno_telemetry.sinks.wandb.feed.Feed.keep_report", lambda *_: None)
    many = tuple(replace(found.findings[2], id=str(index)) for index in range(4_000))
    bare = replace(found, modules=(), blocks=(), findings=many)
    capture(alone, *(at_step(bare, examples, step) for step in (1, 2, 3)))
    [table] = tables(server)
    steps = [each[0] for each in table["data"]]
    assert [steps.count(step) for step in (1, 2, 3)] == [2_000, 4_000, 4_000]


def test_wandb_sync_uploads_the_table_from_the_runs_folder_alone(server, alone, found):
    import shutil

    import wandb

    lines = capture(alone, found, mode="offline")
    wandb.teardown()
    home = alone.parent / "home"
    kept = [path for path in home.rglob("*") if path.is_file() and path.suffix != ".log"]
    assert kept == []
    shutil.rmtree(home)
    home.mkdir()
    run_wandb(alone.parent, lines[-1].partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    [table] = tables(server)
    assert [[*each[:5], each[7]] for each in table["data"]] == EXPECTED
    [run] = server.runs.values()
    assert [each.get("findings/error") for each in run.record_rows] == [1]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_of_a_redacted_capture_the_table_is_a_file_that_tells_no_path(server, alone, found, mode):
    import wandb

    lines = capture(alone, found, redact=True, mode=mode)
    wandb.teardown()
    if mode == "offline":
        run_wandb(alone.parent, lines[-1].partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    [run] = server.runs.values()
    assert run.files["findings.csv"] == make_table(table_rows(found)).as_csv()
    assert server.artifacts == []
    assert str(alone).encode() not in b"\n".join(server.received)
    assert run.rows[0]["findings/error"] == 1


def test_a_table_leaves_no_folder_behind_that_python_would_warn_of(alone, found, monkeypatch):
    import wandb

    monkeypatch.setattr(tempfile, "tempdir", str(alone.parent / "temporary"))
    (alone.parent / "temporary").mkdir()
    capture(alone, found, mode="offline")
    wandb.teardown()
    assert list((alone.parent / "temporary").iterdir()) == []


def test_a_table_that_cannot_be_logged_costs_nothing_else_and_is_told(alone, found):
    import wandb

    sink = WandbRun(mode="offline")
    sink.open(RunContext(alone, experiment="demo"))
    sink.write(found)
    [run] = (alone / "wandb").iterdir()
    (run / "files" / "media").write_text("where W&B would make a folder")
    lines = sink.close(ok=True)
    wandb.teardown()
    assert [line for line in lines if "it has no table of findings: " in line]
    [only] = log.read_rows(run)
    assert only["findings/error"] == 1
    assert log.exit_code(run) == 0
    artifacts = [entry.artifact.type for entry in log.read_log(run) if entry.HasField("artifact")]
    assert artifacts[0] == "activation-report"


@pytest.mark.parametrize("commit", [False, True])
def test_in_a_callers_run_the_table_costs_no_row_of_theirs(alone, found, examples, commit):
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    mine = wandb.init(mode="offline", dir=alone, settings=settings)
    sink = WandbRun(mine, commit=commit)
    for step in range(3):
        mine.log({"loss": float(step)}, **({} if commit else {"step": step}))
        sink.write(at_step(found, examples, step))
    assert sink.close(ok=True) == []
    mine.log({"loss": 3.0}, **({} if commit else {"step": 3}))
    folder = Path(mine.sync_dir)
    mine.finish()
    wandb.teardown()
    rows = log.read_rows(folder)
    assert [each["loss"] for each in rows if "loss" in each] == [0, 1, 2, 3]
    assert [each["findings/error"] for each in rows if "findings/error" in each] == [1, 1, 1]
    assert len(log.read_tables(folder)["findings/table"]["data"]) == 9
    # With `commit` each record and each table has a row of its own.
    assert rows[-1]["_step"] == (8 if commit else 3)


def with_severities(record: CaptureRecord, *severities: str) -> CaptureRecord:
    cause = record.findings[0]
    return replace(
        record,
        findings=tuple(
            replace(cause, id=str(index), layer=f"layer.{index}", severity=severity)
            for index, severity in enumerate(severities)
        ),
    )


def test_an_alert_names_the_first_causes_errors_in_front(found, examples):
    severe = with_severities(found, "note", "warning", "error", "warning", "error")
    lines = [
        "error: layer.2: dead_layer | <b> of `dead`",
        "error: layer.4: dead_layer | <b> of `dead`",
        "warning: layer.1: dead_layer | <b> of `dead`",
        "and 1 more",
    ]
    assert alert(severe) == Alert("error at step 1000: dead_layer", "\n".join(lines), "ERROR")
    warned = alert(examples.at_step(with_severities(found, "note", "warning"), None))
    assert (warned.title, warned.level) == ("warning: dead_layer", "WARN")
    assert warned.text == "warning: layer.1: dead_layer | <b> of `dead`"


def test_only_a_cause_that_is_an_error_or_a_warning_is_an_alert(found, record):
    assert alert(with_severities(found, "note")) is None
    # The warning follows from the note, which explains it.
    cause, follows = with_severities(found, "note", "warning").findings
    assert alert(replace(found, findings=(cause, replace(follows, follows_from="0")))) is None
    assert alert(replace(found, findings=())) is None
    assert alert(record) is None


def test_an_alert_is_short_and_carries_no_path_of_the_finding(found):
    cause = replace(
        found.findings[0], rule="r" * 300, message="m\n" * 300, layer=None, report="/home/ursula/a.json"
    )
    told = alert(replace(found, findings=(cause,) * 9))
    # W&B refuses longer titles.
    assert len(told.title) < 64
    assert len(told.text) < 600
    assert told.text.splitlines()[0].startswith("error: the model: m m m")
    assert "ursula" not in told.title + told.text


def test_every_severe_record_is_an_alert_on_request_and_only_then(server, alone, record, found, examples):
    nothing = replace(examples.at_step(record, 3000), findings=())
    records = (record, found, at_step(found, examples, 2000), nothing, at_step(found, examples, 4000))
    capture(alone, *records)
    assert server.alerts == []
    capture(alone, *records, alert=True)
    assert [each["title"] for each in server.alerts] == [
        f"error at step {step}: dead_layer" for step in (1000, 2000, 4000)
    ]
    assert {each["text"] for each in server.alerts} == {"error: dead: dead_layer | <b> of `dead`"}
    # Otherwise the server would hold back what comes within a minute.
    assert {(each["severity"], each["waitDuration"]) for each in server.alerts} == {("ERROR", 0)}


def test_an_offline_alert_does_no_harm_and_is_sent_with_the_upload(server, alone, found):
    import wandb

    lines = capture(alone, found, alert=True, mode="offline")
    wandb.teardown()
    assert lines[0] == "W&B is offline, as requested."
    assert (server.alerts, server.received) == ([], [])
    [folder] = (alone / "wandb").iterdir()
    assert [each["findings/error"] for each in log.read_rows(folder)] == [1]
    assert log.exit_code(folder) == 0
    run_wandb(alone.parent, lines[-1].partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert [each["title"] for each in server.alerts] == ["error at step 1000: dead_layer"]


def test_a_disabled_sink_takes_the_option_too(alone, found):
    assert capture(alone, found, alert=True, mode="disabled")[-1] == "W&B wrote nothing."


def test_an_alert_comes_from_a_callers_run_too(server, alone, found):
    import wandb

    mine = wandb.init(project="p", id="mine", dir=alone, settings=wandb.Settings(silent=True, console="off"))
    sink = WandbRun(mine, alert=True)
    sink.write(found)
    sink.close(ok=True)
    mine.finish()
    assert [(each["runName"], each["severity"]) for each in server.alerts] == [("mine", "ERROR")]
