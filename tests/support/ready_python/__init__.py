"""A Python that has imported torch already, for programs that tests start.

`python()` is started like `sys.executable`, with `-c`, `-m` or a script. A server, one for each process of
the tests, has imported what takes seconds, and forks for each program: with its arguments, folder, variables
and streams, and with nothing of an earlier one. What a new process does by itself is not seen there. So tests
of start-up, signals, limits and exits, and of what is imported or printed on import, start `sys.executable`.
Flags and variables that an interpreter reads when it starts make a real process of it anyway.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_NAMES = ("python", "fno-telemetry")
_LONGEST_FIRST_LINE = 127  # bytes that Linux reads of it


def python() -> str:
    """Return what to start instead of `sys.executable`."""
    return str(programs() / "python")


@cache
def programs() -> Path:
    """Return the folder of `python` and `fno-telemetry`, to be the first one in PATH."""
    first_line = f"#!{sys.executable} -IS\n"
    if not hasattr(os, "pidfd_open") or " " in sys.executable or len(first_line) > _LONGEST_FIRST_LINE:
        return Path(sys.executable).parent
    folder = Path(tempfile.mkdtemp(prefix="ready-"))
    for name in _NAMES:
        (folder / name).write_text(first_line + (_HERE / "client.py").read_text(encoding="utf-8"))
        (folder / name).chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, str(_HERE / "server.py"), str(folder / "socket")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**variables, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(_end, server, folder)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    return folder


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.communicate(timeout=20)  # it ends with its stdin, also where this is never called
    shutil.rmtree(folder, ignore_errors=True)
