"""Ctrl-C: exit code 130, one word, and nothing half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
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
        env={**os.environ, "PYTHONPATH": str(HERE)},
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
