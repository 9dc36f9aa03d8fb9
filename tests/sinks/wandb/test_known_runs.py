"""What is known of W&B runs later, without W&B: where they are, and the lines that show and upload them."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fno_telemetry import report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import FrozenMapping
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb import run_notes
from fno_telemetry.sinks.wandb.how_to_look import how_to_look
from fno_telemetry.sinks.wandb.run_notes import NOTE, UNFINISHED, KnownRun, runs_in
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_stand_in, wandb_surroundings
from support.sink_runs import write_records

KEY = wandb_stand_in.API_KEY
run_wandb = wandb_surroundings.run_wandb


def capture(folder: Path, *records, experiment: str = "demo", redact: bool = False, **options) -> list[str]:
    """Write the records and return what is said at the end; the logs are whole then."""
    import wandb

    lines = write_records(
        WandbRun(**options), RunContext(folder, experiment=experiment, redact=redact), *records
    )
    wandb.teardown()
    return lines


def commands(lines: list[str], program: str) -> list[str]:
    """The commands of W&B's in these lines."""
    return [found[0] for line in lines if (found := re.search(rf"wandb {program} .*", line))]


@pytest.mark.parametrize("layout", ["experiment", "per-checkpoint"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_later_it_is_said_how_to_look_in_the_words_of_the_capture(
    server, alone, record, examples, mode, layout
):
    folder = alone / "a 'quoted' [folder]"
    records = [examples.at_step(record, step) for step in (1000, 2000)]
    said = capture(folder, *records, mode=mode, layout=layout)
    assert how_to_look(runs_in(folder)) == [line for line in said if "as requested" not in line]
    assert len(said) == {"online": 2, "offline": 3}[mode] - (mode == "online" and layout != "experiment")


def test_what_the_server_calls_a_run_is_noted_in_its_folder(server, alone, record):
    capture(alone, record, project="p", entity="lab")
    [folder] = (alone / "wandb").glob("run-*")
    [(name, _)] = server.runs.items()
    assert json.loads((folder / NOTE).read_text()) == {
        "schema": "fno-telemetry-wandb-run/1",
        "id": name,
        "mode": "online",
        "experiment": "demo",
        "group": "demo",
        "entity": "lab",
        "project": "p",
        "url": f"{server.url}/lab/p/runs/{name}",
        "project_url": f"{server.url}/lab/p",
        "joins": None,
        "problem": None,
        "workspace": None,
        "detail": "overview",
        "media": None,
    }


def test_captures_into_one_folder_add_up_and_a_deleted_run_is_left_out(server, alone, record, examples):
    capture(alone, examples.at_step(record, 1000), experiment="a")
    capture(alone, examples.at_step(record, 2000), experiment="a")
    capture(alone, record, experiment="b")
    capture(alone, record, experiment="c", mode="offline")
    *_, b, c = runs_in(alone)
    urls = [f"{server.url}/stand-in/fno-telemetry/runs/{name}" for name in server.runs]
    assert how_to_look(runs_in(alone)) == [
        *(f"W&B run: {url}" for url in urls),
        f"W&B project: {server.url}/stand-in/fno-telemetry",
        f"wandb leet {shlex.quote(str(c.folder))}",
        f"to upload it: wandb sync {shlex.quote(str(c.folder))}",
    ]
    shutil.rmtree(b.folder)
    shutil.rmtree(c.folder)
    assert how_to_look(runs_in(alone)) == [
        f"W&B run: {urls[0]}",
        f"W&B project: {server.url}/stand-in/fno-telemetry",
    ]


def test_the_commands_show_and_upload_every_run_and_then_say_that_it_is_done(
    server, alone, record, examples, monkeypatch
):
    at = examples.at_step
    capture(alone, at(record, 1000), mode="offline")
    capture(alone, at(record, 2000), mode="offline")
    capture(alone, at(record, 7), experiment="other", mode="offline")
    # This one could not be online, and joins the one that was.
    capture(alone, at(record, 1), experiment="third", mode="online")
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", wandb_surroundings.NOWHERE)
        capture(alone, at(record, 2), experiment="third", init_timeout=1)
    assert [run.id.partition("-")[0] for run in runs_in(alone)] == ["demo", "demo", "other", "third", "third"]
    lines = how_to_look(runs_in(alone))
    [leet] = commands(lines, "leet")
    assert leet == f"wandb leet {shlex.quote(str(alone / 'wandb'))}"
    environment = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    for line in commands(lines, "sync"):
        run_wandb(alone.parent, line, **environment)
    steps = {
        run.fields["displayName"]: [row["checkpoint_step"] for row in run.record_rows]
        for run in server.runs.values()
    }
    assert steps == {"demo": [1000, 2000], "other": [7], "third": [1, 2]}
    assert how_to_look(runs_in(alone))[2:] == [leet, "already uploaded by wandb sync"]


def test_the_log_of_any_run_can_be_inspected_where_it_is_said_to_be(server, alone, record):
    for mode in ("offline", "online"):
        capture(alone, record, mode=mode)
    for run in runs_in(alone):
        (run.folder / NOTE).unlink()
    for line in commands(how_to_look(runs_in(alone)), "leet"):
        shown = run_wandb(alone.parent, line.replace("leet", "leet inspect --json"))
        assert '"checkpoint_step":1000' in shown


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_of_a_redacted_capture_the_note_names_no_server_account_or_path(server, alone, record, mode):
    capture(alone, record, mode=mode, entity="ursula", redact=True)
    [run] = runs_in(alone)
    text = (run.folder / NOTE).read_text()
    assert not re.search(r"ursula|://|127\.0\.0\.1|/[a-z]+/", text)
    assert str(alone) not in text
    assert (run.mode, run.experiment, run.project) == (mode, "demo", "fno-telemetry")
    if mode == "online":
        assert how_to_look([run]) == [
            f"W&B run {run.id} is online; its address is not recorded here",
            f"wandb leet {shlex.quote(str(run.folder))}",
        ]


def test_the_problem_of_a_redacted_run_is_noted_without_its_cause(tmp_path):
    run = KnownRun(tmp_path, "i", "online", url="http://x", problem="it has no report: no /home/ursula/x")
    run_notes.write(run, redacted=True)
    document = json.loads((tmp_path / NOTE).read_text())
    assert (document["problem"], document["url"]) == ("it has no report", None)
    run_notes.write(run, redacted=False)
    assert json.loads((tmp_path / NOTE).read_text())["problem"] == run.problem


def test_of_a_killed_capture_the_address_is_known_and_what_is_missing(server, alone, record, run_program):
    done = run_program(
        f"""
import os, signal
sink = WandbRun()
sink.open(ft.RunContext(Path({str(alone)!r}), experiment="demo"))
sink.write(record)
sink.flush()
os.killpg(os.getpgid(0), signal.SIGKILL)
""",
        anew=True,
        WANDB_BASE_URL=server.url,
        WANDB_API_KEY=KEY,
    )
    assert done.returncode == -signal.SIGKILL
    where, _, rest = how_to_look(runs_in(alone))
    [name] = server.runs
    assert where == f"W&B run: {server.url}/stand-in/fno-telemetry/runs/{name}"
    assert rest.startswith(f"W&B: {UNFINISHED}; to upload the rest: wandb sync --include-online ")
    server.runs.clear()
    run_wandb(alone.parent, commands([rest], "sync")[0], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    assert [row["checkpoint_step"] for row in server.runs[name].record_rows] == [1000]
    assert how_to_look(runs_in(alone))[2:] == []


@pytest.mark.parametrize(
    "note",
    [
        None,
        "{",
        "[]",
        '{"schema": "fno-telemetry-wandb-run/2", "id": "other", "mode": "online"}',
        '{"schema": "fno-telemetry-wandb-run/1", "id": "other"}',
        '{"schema": "fno-telemetry-wandb-run/1", "id": "other", "mode": "elsewhere"}',
        '{"schema": "fno-telemetry-wandb-run/1", "id": "other", "mode": "online", "url": 3}',
        '{"schema": "fno-telemetry-wandb-run/1", "id": "other", "mode": "online", "url": "http://x\\u001b[2J"}',
    ],
    ids=[
        "missing",
        "cut off",
        "a list",
        "of a later version",
        "in part",
        "of no mode",
        "of a wrong type",
        "hostile",
    ],
)
def test_without_a_note_that_can_be_read_the_folders_name_tells(alone, record, note):
    capture(alone, record, mode="offline")
    [run] = runs_in(alone)
    (run.folder / NOTE).unlink()
    if note is not None:
        (run.folder / NOTE).write_text(note)
    lines = how_to_look([run])
    assert runs_in(alone) == [KnownRun(run.folder, run.id, "offline")]
    assert how_to_look(runs_in(alone)) == lines


def test_what_a_later_version_adds_to_a_note_is_left_alone(alone, record):
    capture(alone, record, mode="offline")
    [run] = runs_in(alone)
    document = json.loads((run.folder / NOTE).read_text())
    (run.folder / NOTE).write_text(json.dumps(document | {"colour": ["red"]}))
    assert runs_in(alone) == [run]


def test_a_note_that_cannot_be_written_costs_no_record(alone, record, monkeypatch):
    # A file stands where the note's folder should be.
    monkeypatch.setattr(run_notes, "NOTE", Path("logs", "debug.log", "run.json"))
    _, problem, leet, sync = capture(alone, record, mode="offline")
    assert problem.startswith("W&B: `view --wandb` will not show all of this: ")
    assert how_to_look(runs_in(alone)) == [leet, sync]


def test_a_report_stands_for_the_runs_of_its_experiment(alone, record):
    for experiment in ("a", "b"):
        capture(alone, record, experiment=experiment, mode="offline")
    a, b = runs_in(alone)
    for experiment, expected in (("b", [b]), ("a", [a]), ("elsewhere", [a, b]), (None, [a, b])):
        provenance = FrozenMapping({"experiment": experiment} if experiment else {})
        path = alone / "report.json"
        report.write(record.__class__(**{**vars(record), "provenance": provenance}), path)
        assert runs_in(path) == expected
    assert runs_in(alone / "wandb") == [a, b]


def test_other_things_in_the_folder_are_no_runs(alone, record):
    capture(alone, record, mode="offline")
    [run] = runs_in(alone)
    for name in ("latest-run", "run-20260101_000000-empty", "offline-run-of-somebody"):
        (alone / "wandb" / name).mkdir()
    (alone / "wandb" / "run-20260101_000000-file").write_text("")
    assert runs_in(alone) == [run]


def test_without_runs_it_is_said_what_writes_them(tmp_path):
    expected = (
        f"{tmp_path}: no W&B run in this folder; `fno-telemetry capture --sink wandb --output {tmp_path}`"
    )
    with pytest.raises(ReportError, match=re.escape(expected)):
        runs_in(tmp_path)
    with pytest.raises(ReportError, match="no such file"):
        runs_in(tmp_path / "nothing")
    if os.geteuid():  # the superuser may read anything
        (tmp_path / "wandb").mkdir(mode=0)
        with pytest.raises(ReportError, match="cannot be read: Permission denied"):
            runs_in(tmp_path)


def test_reading_imports_neither_wandb_nor_torch(alone, record):
    capture(alone, record, mode="offline")
    program = (
        "import sys; from fno_telemetry.sinks.wandb import how_to_look, runs_in; "
        "print(len(how_to_look(runs_in(sys.argv[1]))), "
        "[name for name in ('torch', 'wandb', 'wandb_workspaces') if name in sys.modules])"
    )
    line = [sys.executable, "-c", program, str(alone)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "2 []\n"


def test_nothing_in_a_note_becomes_a_command_of_its_own(tmp_path):
    run = KnownRun(tmp_path / "offline-run", "i", "offline", joins="x; echo harmed")
    [_, line] = how_to_look([run])
    _, _, command = line.partition(": ")
    assert shlex.split(command) == ["wandb", "sync", "--id", "x; echo harmed", str(run.folder)]


def test_online_runs_of_several_captures_have_their_project_in_common():
    def run(name: str, **more: str) -> KnownRun:
        folder, url = Path("runs", name, "wandb", "run-1-x"), "https://w.ai/e/p"
        more = {"url": f"{url}/runs/{name}", "project_url": url, **more}
        return KnownRun(folder, name, "online", experiment=name, **more)

    assert how_to_look([run("a"), run("b", workspace="https://w.ai/e/p?nw=1")]) == [
        "a, in runs/a:",
        "  W&B run: https://w.ai/e/p/runs/a",
        "b, in runs/b:",
        "  W&B run: https://w.ai/e/p/runs/b",
        "W&B project: https://w.ai/e/p",
        "W&B workspace: https://w.ai/e/p?nw=1",
    ]


def test_runs_of_several_captures_are_uploaded_together_only_where_one_command_can(tmp_path):
    def runs(**more: str) -> list[KnownRun]:
        folders = [tmp_path / name / "wandb" / "offline-run-20260101_000000-x" for name in ("a", "b")]
        return [KnownRun(folder, "x", "offline", **more) for folder in folders]

    a, b = (run.folder for run in runs())
    assert how_to_look(runs(project="p"))[-1].startswith("to upload all of them into the project p, which ")
    assert how_to_look(runs())[-1].endswith(f": wandb sync {a} {b}")
    assert not [line for line in how_to_look(runs(joins="other")) if "all of them" in line]


def test_runs_below_a_folder_are_found_only_where_they_are_asked_for(alone, record):
    capture(alone / "a", record, mode="offline")
    with pytest.raises(ReportError, match="no W&B run in this folder"):
        runs_in(alone)
    [run] = runs_in(alone, below=True)
    assert run.capture_folder == alone / "a"
