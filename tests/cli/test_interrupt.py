"""Ctrl-C and SIGTERM: exit code 130, one word, and nothing half-written."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry_cli.interrupts import finish_first, sigterm_as_ctrl_c

# A process started in the background may have inherited that it ignores Ctrl-C.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from fno_telemetry_cli.app import main
main()
"""
SLOW = """
import sys, time
from cli_networks import Plain

class Slow(Plain):
    def forward(self, x):
        print("running", file=sys.stderr, flush=True)
        time.sleep(30)
"""


def test_an_interrupted_capture_leaves_nothing(folder):
    Path("slow.py").write_text(SLOW)
    line = ("capture", "--input", "train.npz", "--output", "out", "--model", "slow:Slow", "--json")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *line, "--sink", "tensorboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "fno-telemetry: interrupted\n"
    assert '"error": "interrupted"' in out
    assert not Path("out").exists()


def test_an_interrupt_anywhere_in_a_model_is_no_failure_of_the_model(run, folder):
    line = ("--input", "train.npz", "--model", "cli_networks:Raising", "--set", "error=KeyboardInterrupt")
    for command in (("capture", "--output", "out"), ("capture", "--output", "out", "--dry-run"), ("map",)):
        result = run(*command, *line)
        assert (result.code, result.out, result.err) == (130, "", "fno-telemetry: interrupted\n")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("network", "diagnose"),
    [("Interrupted", ()), ("Interrupted", ("--diagnose",)), ("Terminated", ("--diagnose",))],
)
def test_what_was_finished_before_an_interrupt_is_kept_whole(run, folder, read_events, network, diagnose):
    own = signal.getsignal(signal.SIGTERM)
    for step in range(4):
        weights = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(1, 2, 3, padding=1)})
        torch.nn.init.constant_(weights.conv.bias, 2.0 if step > 1 else 0.5)
        torch.save(weights.state_dict(), f"step{step}.pt")
    line = ("--input", "train.npz", "--output", "out", "--model", f"cli_networks:{network}", "--force")
    if network == "Terminated":  # into a run that is there already
        assert run("capture", "-q", *line, "--checkpoint", "step[0]*", "--sink", "tensorboard").code == 0
    result = run("capture", *line, "--checkpoint", "step*.pt", "--sink", "tensorboard", *diagnose)
    assert (result.code, result.out) == (130, "")
    assert result.err.splitlines() == [
        "2 reports finished before: step0, step1",
        "fno-telemetry: interrupted",
    ]
    reports = sorted(Path("out").glob("*.json"))
    assert [ft.load_report(report).step for report in reports] == [0, 1]
    events = read_events(Path("out/tensorboard/out"))
    assert [step for step, _ in events["rms/conv"]] == [0, 1]
    assert ("findings/error" in events) == bool(diagnose)
    assert [path for path in Path("out").rglob("*") if path.name.startswith(".")] == []
    assert signal.getsignal(signal.SIGTERM) is own


@pytest.fixture
def _heeds_ctrl_c():
    """Tests that run in the background of a shell are started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_must_finish_does_before_an_interrupt_ends_the_command(number):
    done = []
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c(), finish_first():
        signal.raise_signal(number)
        done.append("after the first")
        signal.raise_signal(signal.SIGTERM)
        done.append("after SIGTERM")
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            done.append("after Ctrl-C")
    assert done == ["after the first", "after SIGTERM"]
