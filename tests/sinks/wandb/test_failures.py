"""Whatever W&B lacks, a capture ends soon, asks nothing, and its report, curves and rows are whole.

Each case is a process of its own that is killed, and so fails, when it takes too long.
"""

import ast
import contextlib
import os
import pty
import select
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fno_telemetry import report
from support import ready_python, wandb_stand_in, wandb_surroundings
from support import wandb_log as log

run_program, run_wandb = wandb_surroundings.run_program, wandb_surroundings.run_wandb
environment, PROGRAM = wandb_surroundings.environment, wandb_surroundings.PROGRAM
NOWHERE, KEY = wandb_surroundings.NOWHERE, wandb_stand_in.API_KEY
RECORDS = 3

CAPTURE = f"""
later = [example_record.at_step(record, 1000 * i) for i in range(1, {RECORDS} + 1)]
options = dict(init_timeout=1, finish_timeout=1)
"""


def lines_of(stdout: str) -> list[str]:
    """The lines about W&B, after checking that no sink failed and nothing else was printed."""
    status, view, *lines = stdout.splitlines()
    assert set(ast.literal_eval(status).values()) == {"ok"}
    assert view.startswith("fno-telemetry view ")
    return [line for line in lines if "tensorboard" not in line]


def check_output(folder: Path, kind: str = "offline-run") -> None:
    """Check that the report and all rows are there."""
    assert report.load_report(folder / "activation_report.json").step == 1000 * RECORDS
    [log_file] = (folder / "wandb").glob(f"{kind}-*/*.wandb")
    rows = log.read_rows(log_file.parent)
    assert [row["checkpoint_step"] for row in rows] == [1000, 2000, 3000]


@pytest.mark.parametrize(
    ("terminal", "option", "variables", "reason"),
    [
        (False, None, {}, f"no credentials for {NOWHERE}; run `wandb login` or set WANDB_API_KEY."),
        (True, None, {}, f"no credentials for {NOWHERE}; run `wandb login` or set WANDB_API_KEY."),
        (True, "online", {}, f"no credentials for {NOWHERE}; "),
        (True, None, {"WANDB_MODE": "online"}, f"no credentials for {NOWHERE}; "),
        (True, None, {"WANDB_API_KEY": "too-short"}, "its credentials cannot be used: WANDB_API_KEY invalid"),
        (True, None, {"WANDB_API_KEY": KEY, "WANDB_RELOGIN": "true"}, "WANDB_RELOGIN asks for a new login"),
    ],
)
def test_without_usable_credentials_the_run_is_offline(
    tmp_path, run_program, terminal, option, variables, reason
):
    run = on_a_terminal(tmp_path) if terminal else run_program
    done = run(CAPTURE + f"capture('out', WandbRun(mode={option!r}, **options), *later)", **variables)
    assert done.returncode == 0, done.stderr
    lines = lines_of(done.stdout)
    assert lines[0].startswith(f"W&B is offline: {reason}")
    assert "too-short" not in done.stdout
    check_output(tmp_path / "out")
    [folder] = (tmp_path / "out" / "wandb").iterdir()
    path = f"out/wandb/{folder.name}"
    assert lines[1:] == [f"wandb leet {path}", f"to upload it: wandb sync {path}"]


def on_a_terminal(folder: Path):
    """Run the program where it could ask: on a pseudo-terminal on which nobody answers."""

    def run(text: str, timeout: float = 40, **more: str) -> SimpleNamespace:
        home = folder / "home"
        home.mkdir(exist_ok=True)
        master, slave = pty.openpty()
        shown = b""
        process = subprocess.Popen(
            [ready_python.python(), "-c", PROGRAM + text],
            env=environment(home, TERM="xterm", **more),
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        try:
            end = time.monotonic() + timeout
            # What is left in the terminal can be read until the last program on it is gone.
            with contextlib.suppress(OSError):
                while time.monotonic() < end:
                    if select.select([master], [], [], 0.1)[0]:
                        shown += os.read(master, 65_536)
            status = process.wait(timeout=max(0.1, end - time.monotonic()))
        finally:
            process.kill()
            process.wait(timeout=10)
            os.close(master)
        return SimpleNamespace(returncode=status, stdout=shown.decode().replace("\r\n", "\n"), stderr="")

    return run


def test_a_server_that_refuses_leaves_an_offline_run_that_can_join_the_online_one(tmp_path, run_program):
    done = run_program(
        CAPTURE
        + """
import wandb
mine = wandb.init(mode="offline", dir="mine", settings=wandb.Settings(silent=True, console="off"))
capture("out", WandbRun(**options), *later, others=[ft.TensorBoard()])
mine.log({"loss": 1.0})
mine.finish()
""",
        WANDB_API_KEY=KEY,
    )
    assert done.returncode == 0, done.stderr
    why, _, sync = lines_of(done.stdout)
    assert why.startswith("W&B is offline, because an online run could not be started: ")
    assert "connection refused" in why
    check_output(tmp_path / "out")
    assert list((tmp_path / "out" / "tensorboard" / "demo").glob("events.*"))
    # The caller's run was not ended to free the id.
    [mine] = (tmp_path / "mine").glob("wandb/offline-run-*")
    assert log.read_rows(mine) == [{"loss": 1, "_step": 0}]
    with wandb_stand_in.StandIn() as server:
        run_wandb(tmp_path, sync.partition(": ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    [(name, run)] = server.runs.items()
    assert name.startswith("demo-")
    assert not name.endswith("-offline")
    assert [row["checkpoint_step"] for row in run.record_rows] == [1000, 2000, 3000]


def test_a_server_that_never_answers_costs_the_timeout_once(tmp_path, run_program):
    with wandb_stand_in.StandIn(silent=True) as server:
        done = run_program(
            CAPTURE
            + """
import time
started = time.monotonic()
sink = WandbRun(layout="per-checkpoint", **options)
capture("out", sink, *later)
assert time.monotonic() - started < 60  # W&B itself would wait for minutes
""",
            WANDB_API_KEY=KEY,
            WANDB_BASE_URL=server.url,
        )
    assert done.returncode == 0, done.stderr
    why, leet, sync = lines_of(done.stdout)
    assert why.startswith("W&B is offline, because an online run could not be started: ")
    assert leet == "wandb leet out/wandb"
    assert sync == "to upload them: wandb sync out/wandb/offline-run-*"
    runs = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    steps = [log.read_rows(run.parent)[0]["checkpoint_step"] for run in runs]
    assert sorted(steps) == [1000, 2000, 3000]


@pytest.mark.parametrize("after", [1, RECORDS])
def test_a_server_that_dies_leaves_what_it_did_not_get_to_upload(tmp_path, run_program, after):
    done = run_program(
        CAPTURE
        + f"""
import os
from support.wandb_stand_in import StandIn
server = StandIn().__enter__()
os.environ["WANDB_BASE_URL"] = server.url
written = []
def dies():
    written.append(1)
    if len(written) == {after}:
        server.stop()
capture("out", WandbRun(finish_timeout=1), *later, between=dies)
""",
        WANDB_API_KEY=KEY,
        WANDB_HTTP_TIMEOUT="1",
    )
    assert done.returncode == 0, done.stderr
    where, _, problem = lines_of(done.stdout)
    assert where.startswith("W&B run: http://127.0.0.1:")
    assert (
        "not everything was uploaded in 1 s; to upload the rest: wandb sync --include-online out/wandb/run-"
        in problem
    )
    check_output(tmp_path / "out", "run")
    with wandb_stand_in.StandIn() as server:
        run_wandb(tmp_path, problem.partition("rest: ")[2], WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)
    [run] = server.runs.values()
    assert [row["checkpoint_step"] for row in run.record_rows] == [1000, 2000, 3000]


def test_the_same_experiment_again_in_the_same_process_is_whole_too(tmp_path, run_program):
    text = "capture('out', WandbRun(**options), *later)\n"
    done = run_program(CAPTURE + 2 * text, WANDB_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2
    for run in runs:
        assert [row["checkpoint_step"] for row in log.read_rows(run.parent)] == [1000, 2000, 3000]


def test_a_core_that_cannot_start_is_one_line(tmp_path, run_program):
    done = run_program(
        """
import wandb
sink = WandbRun()
try:
    sink.open(ft.RunContext(Path("out")))
except ft.SinkUnavailable as error:
    print(error)
""",
        WANDB_INIT_TIMEOUT="soon",
    )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    assert line.startswith("W&B cannot start: ")
    assert "init_timeout" in line
