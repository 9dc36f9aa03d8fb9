"""`view --tensorboard`: the real server, from its start to its end."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from fno_telemetry_cli.showing import tensorboard_server

PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from fno_telemetry_cli.app import main
main()
"""


def runs(address: str, wanted: set[str]) -> set[str]:
    """The runs that the server shows, once it has read them."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 30
    while True:
        with opener.open(f"{address}data/runs", timeout=10) as answer:
            found = set(json.load(answer))
        if found == wanted or time.monotonic() > end:
            return found
        time.sleep(0.2)


def check_start_page(address: str, path: str) -> None:
    """Check that the browser may run the page's program, which opens the overview."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address + path, timeout=10) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    [program] = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert '"_ignoreYOutliers": "false"' in program
    [tab] = re.findall(r'location\.replace\("(.*)"\)', program)
    assert urllib.parse.urljoin(address + path, tab) == f"{address}#text&_smoothingWeight=0"


def mentions(words: str) -> list[str]:
    """The command lines of running processes that have these words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("number", "events"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C", "SIGTERM"]
)
def test_the_server_runs_on_loopback_until_told_to_stop(run, captured, small, folder, number, events):
    temporary = folder / "temporary"
    temporary.mkdir()
    if events:
        line = ("--force", "--output", "out", "--sink", "tensorboard", "--experiment", "mine")
        assert run("capture", "--input", "train.npz", *line, *small).code == 0
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "view", "--tensorboard", str(folder / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    with process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"TensorBoard: (http://127\.0\.0\.1:\d+/)(\S+)\n", line)
            assert found, line + process.stderr.read()
            expected = {"mine"} if events else {"activation_report"}
            assert runs(found[1], expected) == expected
            check_start_page(found[1], found[2])
            assert mentions(str(folder)) or not Path("/proc").is_dir()
        finally:
            process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "Ctrl-C stops it.\n")
    end = time.monotonic() + 10
    while mentions(str(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    assert mentions(str(folder)) == []
    # TensorBoard keeps a note of its address of its own.
    assert [path.name for path in temporary.iterdir() if path.name != ".tensorboard-info"] == []


def test_captures_in_one_folder_are_runs_beside_each_other(captured, folder):
    shutil.copytree("out", "runs/a")
    shutil.copytree("out", "runs/b")
    with tensorboard_server.log_dir(Path("runs")) as made:
        found = {str(file.parent.relative_to(made)) for file in made.rglob("events.*")}
    assert found == {"a/activation_report", "b/activation_report"}
    assert not made.exists()
    events = Path("runs/a/tensorboard/a")
    events.mkdir(parents=True)
    (events / "events.out.tfevents.1").touch()
    with tensorboard_server.log_dir(Path("runs")) as made:
        assert made == Path("runs")
    assert [tensorboard_server.has_events(Path("runs", name)) for name in "ab"] == [True, False]


def test_a_port_in_use_is_one_line(captured, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("view", "--tensorboard", "out", "--port", taken.getsockname()[1])
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("fno-telemetry: TensorBoard did not start: ")
    assert "port" in result.err
    assert result.err.count("\n") == 1
