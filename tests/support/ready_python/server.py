"""The process that has imported what takes long, and forks one for each program that is asked for.

It has one thread, and imports nothing of the repository: a fork finds fno_telemetry where PYTHONPATH says.
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import NoReturn

# Nothing that makes something when it is imported, as wandb a folder that its first process would remove.
IMPORTED = ("numpy", "torch", "torch.utils.tensorboard", "safetensors.torch", "msgspec.json", "numba")
IMPORTED += ("pydantic", "requests", "yaml", "typer.main", "rich.console", "rich.progress", "rich.table")

# What the interpreter reads when it starts, and libraries when they are imported.
READ_AT_THE_START = ("LC_", "LANG", "LD_", "PYTHON")
READ_IF_SET = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMBA_")
FOLLOWED = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}

UNSUITABLE = "unsuitable"
LENGTH = 8  # bytes of the number of bytes of a request
STREAMS = ("stdin", "stdout", "stderr")


@dataclass(frozen=True)
class Request:
    """What a program is started with."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]

    @property
    def suits(self) -> bool:
        """Whether a fork of this process is as a new one would be, with these arguments and variables."""
        if not self.arguments or (self.arguments[0][:1] == "-" and self.arguments[0] not in ("-c", "-m")):
            return False
        given = {n for n in {*self.environment, *os.environ} - FOLLOWED if n.startswith(READ_AT_THE_START)}
        given |= {name for name in self.environment if name.startswith(READ_IF_SET)}
        return all(self.environment.get(name) == os.environ.get(name) for name in given)


@dataclass(frozen=True)
class Program:
    """A fork that runs, and the connection on which its end is told."""

    connection: socket.socket
    process: int
    watched: int  # a descriptor that can be read when it has ended

    def kill(self) -> None:
        """Kill it, and what it has started in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)

    def tell_end(self) -> None:
        """Tell the client how it ended."""
        _, status = os.waitpid(self.process, 0)
        with contextlib.suppress(OSError):  # the client has left
            self.connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        self.close()

    def close(self) -> None:
        self.connection.close()
        os.close(self.watched)


def receive(connection: socket.socket) -> Request:
    """Read a request: its length and the descriptors of the streams, then a JSON document."""
    connection.settimeout(10)
    head, streams, _, _ = socket.recv_fds(connection, LENGTH, len(STREAMS))
    text = b""
    while len(text) < int(head):
        part = connection.recv(int(head) - len(text))
        if not part:
            raise EOFError
        text += part
    connection.settimeout(None)
    return Request(**json.loads(text), streams=streams)


def serve(listener: socket.socket) -> Request:
    """Answer requests until the process that started this one ends; in a fork, return its request.

    A client that leaves, as one that a time limit has killed, ends its program.
    """
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)  # its end is that of the process that started this one
    selector.register(listener, selectors.EVENT_READ)
    running: list[Program] = []
    while True:
        for key, _ in selector.select():
            program = key.data
            if key.fileobj == 0:
                for each in running:
                    each.kill()
                sys.exit()
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                request = receive(connection)
                if not request.suits:
                    connection.sendall(UNSUITABLE.encode())
                    connection.close()
                elif process := os.fork():
                    with contextlib.suppress(OSError):  # it may have done so, or ended
                        os.setpgid(process, process)
                    program = Program(connection, process, os.pidfd_open(process))
                    running.append(program)
                    selector.register(program.watched, selectors.EVENT_READ, program)
                    selector.register(connection, selectors.EVENT_READ, program)
                else:
                    os.setpgid(0, 0)
                    selector.close()
                    listener.close()
                    connection.close()
                    for each in running:
                        each.close()
                    return request
                for stream in request.streams:
                    os.close(stream)
            elif program in running and key.fileobj is program.connection:
                selector.unregister(program.connection)
                program.kill()
            elif program in running:
                running.remove(program)
                for each in (program.watched, program.connection):
                    if each in selector.get_map():
                        selector.unregister(each)
                program.tell_end()


def become(request: Request, base: list[str]) -> NoReturn:
    """Run the program in this process, as the interpreter does; `base` is its path without PYTHONPATH."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    open_streams(bool(os.environ.get("PYTHONUNBUFFERED")))
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    named = [Path(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = ["", *dict.fromkeys([*(str(path.absolute()) for path in named), *base])]
    importlib.invalidate_caches()
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].seed()
    sys.orig_argv[:] = [sys.executable, *request.arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    vars(main)["__builtins__"] = builtins
    code: object = None
    try:
        exec(load(request.arguments, main), vars(main))
    except SystemExit as asked:
        code = asked.code
    except BaseException as error:  # noqa: BLE001 - a program may raise anything
        at = error.__traceback__
        while at is not None and at.tb_frame.f_code.co_filename == __file__:
            at = at.tb_next
        sys.excepthook(type(error), error.with_traceback(at), at)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    end(code, main)


def open_streams(is_unbuffered: bool) -> None:
    """Open the standard streams anew, as the interpreter does."""
    for number, name in enumerate(STREAMS):
        mode = "w" if number else "r"
        before = getattr(sys, f"__{name}__")
        size = 0 if is_unbuffered and number else -1
        buffer = open(number, f"{mode}b", buffering=size, closefd=False)  # noqa: SIM115 - for the whole program
        stream = io.TextIOWrapper(
            buffer,
            encoding=before.encoding,
            errors=before.errors,
            newline="\n",
            line_buffering=not is_unbuffered and (buffer.isatty() or name == "stderr"),
            write_through=is_unbuffered,
        )
        getattr(buffer, "raw", buffer).name = f"<{name}>"
        stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def load(arguments: list[str], main: ModuleType) -> CodeType:
    """Return the code of `-c program`, `-m module` or `script`; set sys.argv, sys.path and `main` for it."""
    if arguments[0] == "-c":
        sys.argv[:] = ["-c", *arguments[2:]]
        return compile(arguments[1], "<string>", "exec")
    if arguments[0] == "-m":
        sys.path[0] = str(Path.cwd())
        spec = find_spec(arguments[1])
        if spec is not None and spec.submodule_search_locations is not None:
            spec = find_spec(f"{arguments[1]}.__main__")
        if spec is None or spec.loader is None or spec.origin is None:
            sys.exit(f"{sys.executable}: No module named {arguments[1]}")
        sys.argv[:] = [spec.origin, *arguments[2:]]
        vars(main).update(__spec__=spec, __loader__=spec.loader, __package__=spec.parent)
        vars(main)["__file__"] = spec.origin
        return spec.loader.get_code(spec.name)
    script = Path(arguments[0])
    sys.path[0] = str(script.resolve().parent)
    sys.argv[:] = arguments
    vars(main)["__file__"] = str(script.absolute())
    return compile(script.read_bytes(), arguments[0], "exec")


def end(code: object, main: ModuleType) -> NoReturn:
    """End this process as the interpreter does, but for taking apart what was imported, which takes long."""
    if code is None or isinstance(code, int):
        status = code or 0
    else:
        status = 1
        sys.stderr.write(f"{code}\n")
    threading._shutdown()
    atexit._run_exitfuncs()
    vars(main).clear()  # what is written when a file is forgotten
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                status = status or 120
                sys.stderr.write(f"Exception ignored in: {stream}\n{type(error).__name__}: {error}\n")
    ctypes.CDLL(None).fflush(None)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def start(path: str) -> None:
    """Import, say so on stdout, and serve at a socket of this path."""
    del sys.path[0]  # the folder of this file
    base = [*sys.path]
    for name in IMPORTED:
        with contextlib.suppress(ImportError):  # some are extras
            importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        sys.exit("a library has started a thread: a fork would wait for ever for what that one holds")
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b"ready\n")
        request = serve(listener)
    become(request, base)


if __name__ == "__main__":
    start(sys.argv[1])
