"""The ready Python runs a program as a new process does, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import ready_python

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors")

PROGRAMS = {
    "output": "print('größe'); import sys; print('err', file=sys.stderr)",
    "input": "import sys; print(sys.stdin.read().upper(), sys.stdin.read())",
    "a number": "raise SystemExit(3)",
    "a large number": "import sys; sys.exit(256 + 7)",
    "nothing": "import sys; sys.exit()",
    "a text": "import sys; sys.exit('it failed')",
    "an error": "def f():\n    raise ValueError('größe')\nf()",
    "an error in another": "try:\n    1 / 0\nexcept ArithmeticError as e:\n    raise KeyError('x') from e",
    "no Python": "this is no Python",
    "a hook for errors": "import sys; sys.excepthook = lambda *error: print(error[:2]); 1 / 0",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "terminated": "import os; os.kill(os.getpid(), 15)",
    "an interrupt": "import signal; signal.raise_signal(signal.SIGINT)",
    "at once": "import os; print('lost'); os._exit(4)",
    "arguments": "import sys; print(sys.argv, sys.orig_argv[1:], sys.flags)",
    "itself": "print(__name__, __builtins__, __spec__, '__file__' in globals())",
    "where": "import os, sys; print(os.getcwd(), sys.path, sys.executable, sys.prefix)",
    "variables": "import os; print(sorted(os.environ.items())); os.system('echo $OF_THE_TEST')",
    "streams": (
        "import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr):\n"
        "    print(s.name, s.mode, s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through,"
        " s.isatty(), s.fileno(), type(s.buffer), s is getattr(sys, '__' + s.name[1:-1] + '__'))"
    ),
    "at the end": (
        "import atexit, threading, time\n"
        "atexit.register(print, 'second')\natexit.register(print, 'first')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()"
    ),
    "an error at the end": (
        "import atexit\nclass End:\n    def __call__(self): 1 / 0\n    def __repr__(self): return 'End'\n"
        "atexit.register(End())"
    ),
    "a file that is not closed": "file = open('written', 'w'); file.write('text')",
    "output without a reader": "import os, sys; os.close(1); print('lost')",
    "warnings": "import warnings; warnings.warn('so'); warnings.warn('so', DeprecationWarning)",
    "signals": "import signal; print([(s, signal.getsignal(s)) for s in signal.valid_signals()])",
    "descriptors": "import os; print([d for d in os.listdir('/proc/self/fd') if int(d) > 2])",
    "threads": "import os, threading; print(len(os.listdir('/proc/self/task')), threading.active_count())",
    "a process of its own": "import subprocess, sys; print(subprocess.call([sys.executable, '-c', '5/0']))",
    "torch": (
        "import numpy, torch\n"
        "weight = torch.ones(3, requires_grad=True)\n(weight ** 3).sum().backward()\n"
        "print(weight.grad, torch.get_num_threads(), torch.fft.rfft2(torch.eye(4)), torch.rand(0))"
    ),
}


def both(folder: Path, *arguments: str, **variables: str) -> list[subprocess.CompletedProcess[str]]:
    """Run a program with a new Python and with the ready one, each in this folder."""
    pythons = (sys.executable, ready_python.python())
    return [run(python, folder, *arguments, **variables) for python in pythons]


def run(python: str, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [python, *arguments],
        input="typed",
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OF_THE_TEST": "ü", **variables},
        timeout=60,
        check=False,
    )
    done.args = None
    return done


def equal(new: subprocess.CompletedProcess[str], ready: subprocess.CompletedProcess[str]) -> bool:
    assert (ready.returncode, ready.stdout, ready.stderr) == (new.returncode, new.stdout, new.stderr)
    return True


@pytest.mark.parametrize(
    ("name", "unbuffered"),
    [*((name, "") for name in PROGRAMS), ("streams", "1"), ("output", "1"), ("at once", "1")],
)
def test_a_program_ends_and_prints_as_in_a_new_process(tmp_path, name, unbuffered):
    new, ready = both(tmp_path, "-c", PROGRAMS[name], "one", "-x", "ü", PYTHONUNBUFFERED=unbuffered)
    assert equal(new, ready)
    if name == "a file that is not closed":
        assert (tmp_path / "written").read_text() == "text"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "inner"),
        ("-m", "inner.part", "x"),
        ("-m", "nothing.here"),
        ("-m", "absent"),
        ("script.py", "x"),
    ],
    ids=" ".join,
)
def test_modules_and_scripts_are_found_and_named_as_in_a_new_process(tmp_path, arguments):
    text = "import sys, beside; print(__name__, __file__, __package__, sys.argv, sys.path[:2])\n"
    (tmp_path / "inner").mkdir()
    for name in ("inner/__main__.py", "inner/part.py", "script.py"):
        (tmp_path / name).write_text(text + "print(__spec__ and __spec__.name)")
    for name in ("inner/__init__.py", "beside.py"):
        (tmp_path / name).touch()
    new, ready = both(tmp_path, *arguments, PYTHONPATH=f"{tmp_path}/more")
    if new.returncode:
        assert ready.returncode == new.returncode and ready.stderr.splitlines()[-1:] != []
    else:
        assert equal(new, ready)


def test_a_program_finds_nothing_of_the_one_before(tmp_path):
    python = ready_python.python()
    first = "import sys, os, tabnanny, numpy; sys.mine = 1; os.environ['MINE'] = '1'; numpy.random.seed(1)"
    assert run(python, tmp_path, "-c", first).returncode == 0
    second = "import sys, os; print('tabnanny' in sys.modules, hasattr(sys, 'mine'), 'MINE' in os.environ)"
    assert run(python, tmp_path, "-c", second).stdout == "False False False\n"
    own = "import sys; print([name for name in sys.modules if name.startswith(('fno_telemetry', 'support'))])"
    assert run(python, tmp_path, "-c", own).stdout == "[]\n"
    drawn = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    pairs = zip(*(run(python, tmp_path, "-c", drawn).stdout.split() for _ in range(2)), strict=True)
    assert all(one != other for one, other in pairs)


@pytest.mark.parametrize(
    ("flags", "variables"), [(("-X", "utf8"), {}), ((), {"PYTHONUTF8": "1"}), ((), {"OMP_NUM_THREADS": "2"})]
)
def test_what_an_interpreter_reads_when_it_starts_makes_a_new_one(tmp_path, flags, variables):
    program = "import sys; print('torch' in sys.modules, sys.flags)"
    new, ready = both(tmp_path, *flags, "-c", program, **variables)
    assert equal(new, ready)
    assert run(ready_python.python(), tmp_path, "-c", program).stdout.startswith("True ")


def test_programs_run_beside_each_other_and_in_pipes(tmp_path):
    (tmp_path / "echo.py").write_text("import sys\nfor line in sys.stdin: print(sys.argv[1], line, end='')")
    python = ready_python.python()
    line = f"echo a | {python} echo.py 1 | {python} echo.py 2 | {python} echo.py 3 & wait"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "3 2 1 a\n"


def test_a_time_limit_ends_the_program_too(tmp_path):
    program = "import os, time; open('number', 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([ready_python.python(), "-c", program], cwd=tmp_path, timeout=2)
    wait_for_end(int((tmp_path / "number").read_text()))


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"], ids=["normal", "killed"])
def test_nothing_is_left_when_the_tests_end(tmp_path, end):
    program = (
        "import os, subprocess\nfrom support import ready_python\n"
        "python = ready_python.python()\n"
        "parent = subprocess.run([python, '-c', 'import os; print(os.getppid())'], capture_output=True)\n"
        f"print(parent.stdout.decode(), ready_python.programs(), flush=True)\n{end}"
    )
    done = run(sys.executable, tmp_path, "-c", program, TMPDIR=str(tmp_path))
    server, folder = done.stdout.split()
    wait_for_end(int(server))
    assert end or not Path(folder).exists()


def wait_for_end(process: int) -> None:
    limit = time.monotonic() + 20
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < limit, f"process {process} still runs"
        time.sleep(0.05)
