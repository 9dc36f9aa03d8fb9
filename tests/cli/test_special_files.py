"""Pipes, devices, sockets and folders in place of a file: refused at once, never waited for."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fno_telemetry_cli import reports_in

SECONDS = 20

INPUT = ("--input", "train.npz")
LINES = {
    "a report of view": ("view", "x.json"),
    "a report of view --json": ("view", "--json", "x.json"),
    "a report of view --wandb": ("view", "--wandb", "x.json"),
    "a report of compare": ("compare", "out", "x.json"),
    "a report of diagnose": ("diagnose", "x.json"),
    "a baseline": ("diagnose", "out", "--baseline", "x.json"),
    "thresholds of diagnose": ("diagnose", "out", "--thresholds", "x.json"),
    "thresholds of compare": ("compare", "out", "out", "--thresholds", "x.json"),
    "a map": ("map", *INPUT, "--map", "x.json"),
    "options": ("capture", "--config", "x.json"),
    "an input": ("capture", "--input", "x.json", "--output", "new"),
    "a checkpoint": ("capture", *INPUT, "--checkpoint", "x.json", "--output", "new"),
    "a checkpoint of compare": ("compare", "x", "out", *INPUT),
}


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """End a test that waits for somebody to write into a pipe."""

    def stop(number: int, frame: object) -> None:
        pytest.fail(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["pipe", "socket", "device"])
def special(request, captured) -> str:
    """`x.json` and `x`, which are no files, next to a folder `out` with a report."""
    for name in ("x.json", "x"):
        if request.param == "pipe":
            os.mkfifo(name)
        elif request.param == "device":
            Path(name).symlink_to("/dev/zero")
        else:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(name)
    return request.param


@pytest.mark.parametrize("special", ["pipe"], indirect=True)
@pytest.mark.parametrize("what", LINES)
def test_it_is_refused_in_one_line(run, special, what):
    result = run(*LINES[what])
    assert (result.code, result.err.count("\n")) == (2, 1), result.err
    assert "error" in result.document if "--json" in LINES[what] else result.out == ""
    assert "x" in result.err
    assert "regular file" in result.err or f"{special}; expected" in result.err


def test_in_a_folder_it_is_left_out(run, special):
    Path("x.json").rename("out/x.json")
    for line in (("view", "out"), ("diagnose", "out"), ("compare", "out", "out")):
        result = run(*line)
        assert result.code in (0, 1)
        assert f"out/x.json: cannot be read: a {special}" in result.err.replace("named ", "")
    Path("out/activation_report.json").rename("report.json")
    assert run("view", "out").code == 2


def test_a_folder_of_captures_is_searched_without_opening_it(run, special):
    Path("below").mkdir()
    Path("x.json").rename("out/x.json")
    Path("out").rename("below/out")
    assert [path.name for path in reports_in.captures_below(Path("below"))] == ["out"]
    assert run("view", "below").code == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_that_nobody_thought_of_is_one_line_and_not_the_code_for_worse(
    run, captured, monkeypatch, as_json
):
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("fno_telemetry_cli.commands.view.reports_below", fail)
    result = run("view", "out", *(["--json"] if as_json else []))
    assert result.code == 2
    assert result.err.startswith(
        "fno-telemetry: unexpected ZeroDivisionError: division by zero (test_special_"
    )
    assert result.err.endswith("please report it with the command\n")
    assert result.err.count("\n") == 1
    if as_json:
        assert "ZeroDivisionError" in result.document["error"]
