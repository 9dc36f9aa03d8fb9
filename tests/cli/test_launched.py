"""`capture` in several processes, as torchrun starts them: one report, one voice, one exit code."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.alike_documents import list_differences

SECONDS = 100
COUNT = 2
CAPTURE = ("capture", "--batches", "cli_batches:loader", "--inputs", "0", "--target", "1", "--loss", "mse")
CAPTURE = (*CAPTURE, "--model", "cli_batches:Net")
Ended = tuple[int, str, str]


def launch(*arguments: str) -> list[Ended]:
    """Run the command in two processes with what torchrun sets; return how each ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launched = {"WORLD_SIZE": str(COUNT), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "fno_telemetry_cli", *arguments],
            env={**os.environ, **launched, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(COUNT)
    ]
    try:
        found = [process.communicate(timeout=SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(running, found, strict=True)]


def test_the_report_and_the_exit_code_are_those_of_one_process(run, folder: Path) -> None:
    options = ("--sink", "history", "--fail-on", "note", "--json")
    alone = run(*CAPTURE, "--output", "alone", *options)
    first, second = launch(*CAPTURE, "--output", "together", *options)
    assert first[0] == second[0] == alone.code, first[2]
    document = json.loads(first[1])
    assert document["sinks"] == {"json": "ok", "history": "ok"}
    assert document["findings"] == [
        {**finding, "report": "together/activation_report.json"} for finding in alone.document["findings"]
    ]
    assert second[1:] == ("", "")
    reports = [
        json.loads((folder / name / "activation_report.json").read_text()) for name in ("alone", "together")
    ]
    assert sum(reports[1]["provenance"]["processes"]["samples"]) == reports[0]["summary"]["n_samples"]
    assert list(list_differences(*reports, ("command", "experiment", "report"))) == []
    assert len((folder / "together" / "history.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("wrong", ["the report exists", "the forward fails"])
def test_what_cannot_be_used_is_said_once_and_ends_all(folder: Path, wrong: str) -> None:
    options = ("--input", "train.npz", "--output", "out", "--json")
    if wrong == "the report exists":
        (folder / "out").mkdir()
        (folder / "out" / "activation_report.json").write_text("{}")
        ended, words = launch("capture", *options), "activation_report.json exists"
    else:
        ended = launch("capture", *options, "--model", "cli_networks:RaisesInOneProcess")
        words = "process 1 of 2 failed: RuntimeError: not here"
    assert [code for code, _, _ in ended] == [2, 2]
    assert words in ended[0][2] and words in json.loads(ended[0][1])["error"]
    assert ended[1][1:] == ("", "")
    assert not list(folder.glob("out/*.log"))
