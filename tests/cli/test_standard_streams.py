"""stdout holds results and nothing else, whoever prints, and whoever reads."""

import atexit
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "fno_telemetry_cli"]
LOUD = ("--input", "train.npz", "--model", "cli_loud_network:Loud", "--json")


def test_stdout_is_one_json_document_whatever_a_model_prints(spawn):
    capture = spawn("capture", *LOUD, "--output", "out", anew=True)
    view = spawn("map", *LOUD, anew=True)
    for result, schema in ((capture, "fno-telemetry-capture/1"), (view, "fno-telemetry-map/1")):
        assert result.code == 0
        assert result.document["schema"] == schema
        for who in ("python", "python's own stdout", "descriptor", "C library", "child"):
            for when in ("import", "constructor", "forward", "exit"):
                assert f"{who} {when}" in result.err


def test_stdout_is_kept_clean_within_a_process_that_calls_the_command(run, folder, monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "cli_loud_network", raising=False)
    try:
        assert run("capture", *LOUD, "--output", "out").document["sinks"] == {"json": "ok"}
        os.write(1, b"afterwards")
        assert capfd.readouterr().out == "afterwards"
    finally:
        loud = sys.modules["cli_loud_network"]
        atexit.unregister(loud.shout)


@pytest.mark.parametrize("line", [("view", "out"), ("view", "out", "--json"), ("plugins",)], ids=" ".join)
def test_a_reader_that_leaves_early_is_no_error(captured, line):
    process = subprocess.Popen([*PROGRAM, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_one_line(captured):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, "view", "out"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "fno-telemetry: the output: No space left on device\n")


def test_closed_streams_do_not_become_files_of_ours(captured):
    # Else the report would get descriptor 1 and whatever a library prints with it.
    line = ["capture", "--input", "train.npz", "--output", "new", "--model", "cli_loud_network:Loud"]
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, *line]
    assert subprocess.run(shell, timeout=60).returncode == 0
    assert json.loads(Path("new/activation_report.json").read_text())["modules"]


def test_a_terminal_of_few_letters_gets_a_table_too(captured):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*PROGRAM, "view", "out"], capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"fno_blocks.0.spectral" in done.stdout


@pytest.mark.parametrize(
    ("on_terminal", "options", "shown"), [(True, [], True), (True, ["--quiet"], False), (False, [], False)]
)
def test_progress_is_shown_on_a_terminal_and_only_there(
    run, folder, tiny, monkeypatch, on_terminal, options, shown
):
    monkeypatch.setenv("TERM", "xterm")
    terminal, child = pty.openpty()
    with os.fdopen(child, "w") as stderr, os.fdopen(terminal, "rb", buffering=0) as reader:
        if on_terminal:
            monkeypatch.setattr(sys, "stderr", stderr)
        result = run("capture", "--input", "train.npz", "--output", "out", *tiny, *options)
        stderr.write("the end")
        stderr.flush()
        seen = b""
        while not seen.endswith(b"the end"):
            seen += reader.read(4096)
    assert result.code == 0
    assert (b"capturing" in seen) == shown
    assert "\x1b" not in result.out + result.err


def test_names_with_any_letters_work_where_only_ascii_is_set(spawn, folder):
    line = ("view", "größe.json")
    result = spawn(*line, anew=True, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.code, result.err) == (
        2,
        "fno-telemetry: größe.json: no such file; `fno-telemetry capture` writes reports\n",
    )
