"""What a test starts instead of Python: asks the ready one to run a program, and ends as the program does.

Where a fork of the ready one would not be as a new process, this becomes a real one. Copies of it, with a
first line that names the interpreter, lie beside the socket of the ready one. It imports little.
"""

import json
import os
import signal
import socket
import sys

LENGTH = 8
UNSUITABLE = "unsuitable"
NO_ANSWER = 70


def ask(path: str, arguments: list[str]) -> str:
    """Return the exit code of the program as text, negative for a signal, or UNSUITABLE."""
    folder = os.getcwd()  # noqa: PTH109 - pathlib takes longer to import than all of this
    request = {"arguments": arguments, "folder": folder, "environment": dict(os.environ)}
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [f"{len(text):{LENGTH}}".encode()], [0, 1, 2])
        connection.sendall(text)
        return connection.recv(64).decode()


def main() -> None:
    """Run a program under the name that was called: `python`, or a command that is installed beside it."""
    called, *given = sys.argv
    folder, _, name = called.rpartition("/")
    if name != "python":
        programs, _, _ = sys.executable.rpartition("/")
        given.insert(0, f"{programs}/{name}")
    answer = ask(f"{folder}/socket", given)
    if answer == UNSUITABLE:
        os.execv(sys.executable, [sys.executable, *given])
    code = int(answer or NO_ANSWER)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
