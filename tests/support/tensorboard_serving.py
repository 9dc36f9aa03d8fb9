"""A real TensorBoard server with the loader that it takes by default, for as long as a test asks it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LONGEST_WAIT = 40  # seconds until everything must be shown; 4 to 8 are usual

Get = Callable[..., Any]


@contextlib.contextmanager
def serving(log_dir: Path, is_shown: Callable[[Get], bool]) -> Iterator[Get]:
    """Yield what asks the server for a JSON document, or for bytes, once it shows what it has to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # The server of the machine, not a proxy, is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path: str, as_bytes: bool = False, **query: str) -> Any:
        address = f"http://127.0.0.1:{port}/data/{path}?{urllib.parse.urlencode(query)}"
        with opener.open(address, timeout=10) as answer:
            return answer.read() if as_bytes else json.load(answer)

    with tempfile.TemporaryFile("w+") as log:
        # A session of its own, so that the loader it starts ends with it.
        server = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            shown = _wait(get, server, is_shown)
            log.seek(0)
            said = log.read()
            assert shown, f"the server did not show everything: {said}"
            assert "fast data loading" in said, "not the default loader"
            yield get
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(timeout=10)


def _wait(get: Get, server: subprocess.Popen, is_shown: Callable[[Get], bool]) -> bool:
    end = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            if is_shown(get):
                return True
        time.sleep(0.2)
    return False
