"""Checks that a sink keeps its contract.

In the tests of a package that brings one:

    def test_the_contract(tmp_path):
        check_sink(ParquetSink, tmp_path, name="parquet")

Each check raises an AssertionError that says in one line which promise is broken. A check is a function of a
sink's maker and of an empty folder; where a sink has a place of its own outside the run's folder, such as a
`log_dir`, give each of CHECKS a fresh one.
"""

import math
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import PRECISION, RunContext, Sink
from fno_telemetry.sinks.overview import DETAILS, at_detail
from fno_telemetry.testing import example_record
from fno_telemetry.testing.promises import calling, require

Make = Callable[[], Sink]
"""Makes a new sink at each call: a class, a function, or a `functools.partial` of one."""

_METHODS = ("open", "write", "flush", "close", "read_back")
_KILLED = getattr(signal, "SIGKILL", signal.SIGTERM)
_SECONDS = 120

# Unpickling the maker imports its module, for which the path has to be there first.
_WRITER = f"""
import os, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
make, run, record = pickle.load(sys.stdin.buffer)
sink = make()
sink.open(run)
sink.write(record)
sink.flush()
os.kill(os.getpid(), {int(_KILLED)})
"""


def check_sink(make: Make, folder: Path, name: str | None = None) -> None:
    """Run all CHECKS, each in a folder of its own inside `folder`; `name` is the plug-in's, if it is one.

    AssertionError names the first broken promise. Another process must be able to import what `make` is.
    """
    check_members(make, folder)
    if name is not None:
        found = _made(make).name
        require(
            found == name, f"the sink is called {found!r}, and the plug-in {name!r}: one name was expected"
        )
    for check in CHECKS:
        own = folder / check.__name__
        own.mkdir(parents=True)
        check(make, own)


def check_members(make: Make, folder: Path) -> None:
    """A sink has a name and every method of the contract, and a `detail` that exists if it has any."""
    sink: Any = _made(make)
    name = getattr(sink, "name", None)
    require(isinstance(name, str) and name, f"`name` is {name!r}: a text was expected")
    missing = [method for method in _METHODS if not callable(getattr(sink, method, None))]
    require(not missing, f"the {name} sink has no method `{', '.join(missing)}`")
    detail = getattr(sink, "detail", "full")
    require(detail in DETAILS, f"its `detail` is {detail!r}: one of {', '.join(DETAILS)} was expected")


def check_without_opening(make: Make, folder: Path) -> None:
    """A sink that was never opened can be closed, and has nothing to show."""
    _require_no_lines(_close(_made(make), ok=False), "before it was opened")


def check_opening_alone(make: Make, folder: Path) -> None:
    """A run without a record leaves no files, and `close` has no lines to show."""
    sink = _made(make)
    before = _content(folder)  # a writer of the caller may have a file already
    with calling("open"):
        sink.open(_run(folder))
    with calling("flush"):
        sink.flush()
    _require_no_lines(_close(sink, ok=True), "without a record")
    left = [path for path in _content(folder) if path not in before]
    require(not left, f"opening and closing alone leaves {', '.join(left)}")
    _require_found(sink, folder, [])


def check_kill(make: Make, folder: Path) -> None:
    """What was flushed survives a kill of the process, and a new sink finds it."""
    record, run = example_record.example(), _run(folder)
    with calling(
        "another process cannot make this sink: pickling it",
        expected="give a class or function of a module, or a functools.partial of one",
    ):
        given = pickle.dumps(sys.path) + pickle.dumps((make, run, record))
    # A file, because a pipe would stay open for as long as any process that the sink has started.
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-c", _WRITER]
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and program
                command, input=given, stdout=subprocess.DEVNULL, stderr=errors, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"open, write and flush took more than {_SECONDS} s") from error
        errors.seek(0)
        told = errors.read().decode(errors="replace").strip().splitlines()
    failed = f"writing in another process failed: {told[-1] if told else f'exit code {done.returncode}'}"
    require(done.returncode in (-_KILLED, _KILLED), failed)
    _require_found(_made(make), folder, [record], "flushed before the process was killed")


def check_records(make: Make, folder: Path) -> None:
    """Every record of a series is found at its step with all it has to hold, and is left unchanged."""
    records = _series()
    sink = _opened(make, replace(_run(folder), series=True))
    for record in records:
        _write(sink, record)
    for record, new in zip(records, _series(), strict=True):
        require(record == new, f"the {sink.name} sink changed the record {_of(new.step)} itself")
    lines = _close(sink, ok=True)
    require(bool(lines), "`close` returned no line that says how to look at what was written")
    _require_found(sink, folder, records)
    _require_no_lines(_close(sink, ok=True), "a second time")
    _require_no_lines(_close(sink, ok=False), "a third time")
    _require_found(sink, folder, records, "written before the sink was closed again")


def check_failed_run(make: Make, folder: Path) -> None:
    """A run that fails keeps what was written first."""
    record = example_record.example()
    sink = _opened(make, _run(folder))
    _write(sink, record)
    _close(sink, ok=False)
    _require_found(sink, folder, [record], "written before the run failed")


def check_opening_again(make: Make, folder: Path) -> None:
    """A closed sink can be opened for the next run."""
    first = example_record.example()
    second = example_record.at_step(first, 2000)
    sink = _made(make)
    for record in (first, second):
        with calling("open"):
            sink.open(_run(folder))
        _write(sink, record)
        _close(sink, ok=True)
    numbers = _read(sink, folder)
    # What becomes of the first run is the sink's affair: a report, for one, is replaced.
    _require_numbers(sink, numbers, second, "written after the sink was opened again")


def check_full_detail(make: Make, folder: Path) -> None:
    """A sink that holds only overviews can be made to hold everything."""
    if getattr(_made(make), "detail", "full") == "full":
        return
    takes_options: Callable[..., Sink] = make
    make_full = partial(takes_options, detail="full")
    with calling("the constructor, given detail='full',", expected="this option is how to get everything"):
        sink = make_full()
    detail = getattr(sink, "detail", "full")
    require(detail == "full", f"made with detail='full', the {sink.name} sink says that its is {detail!r}")
    record = example_record.example()
    with calling("open"):
        sink.open(_run(folder))
    _write(sink, record)
    _close(sink, ok=True)
    _require_found(sink, folder, [record], "written with detail='full'")


CHECKS: tuple[Callable[[Make, Path], None], ...] = (
    check_members,
    check_without_opening,
    check_opening_alone,
    check_kill,
    check_records,
    check_failed_run,
    check_opening_again,
    check_full_detail,
)
"""All checks; those that need little come first."""


def _series() -> list[CaptureRecord]:
    """Return records of different content: one has no step, and one has modules alone.

    The record without a step comes first, because a sink may refuse it later.
    """
    record = example_record.example()
    alone = replace(record, input=None, output=None, outputs=(), target=None, blocks=())
    alone = replace(alone, parameters=(), accuracy=None)
    return [
        example_record.at_step(example_record.with_stats(record, "lifter", rms=0.25), None),
        record,
        example_record.at_step(example_record.with_stats(alone, "lifter", rms=0.5, mean=None), 2000),
        example_record.at_step(example_record.add_findings(record), 3000),
    ]


def _run(folder: Path) -> RunContext:
    return RunContext(folder, experiment="demo")


def _made(make: Make) -> Sink:
    with calling("the constructor"):
        return make()


def _opened(make: Make, run: RunContext) -> Sink:
    sink = _made(make)
    with calling("open"):
        sink.open(run)
    return sink


def _write(sink: Sink, record: CaptureRecord) -> None:
    with calling(f"write, given a record {_of(record.step)},"):
        sink.write(record)


def _close(sink: Sink, ok: bool) -> list[str]:
    with calling("close"):
        lines: object = sink.close(ok)
    are_lines = isinstance(lines, list) and all(
        isinstance(line, str) and line.strip() and len(line.splitlines()) == 1 for line in lines
    )
    require(are_lines, f"`close` returned {lines!r}: a list of texts of one line each was expected")
    return list(lines) if isinstance(lines, list) else []


def _require_no_lines(lines: list[str], when: str) -> None:
    require(not lines, f"closed {when}, the sink says how to look at something: {lines}")


def _read(sink: Sink, folder: Path) -> Mapping[Any, Any]:
    with calling("read_back"):
        found: object = sink.read_back(folder)
    if not isinstance(found, Mapping):
        raise AssertionError(f"`read_back` returned a {type(found).__name__}: a mapping was expected")
    return found


def _require_found(
    sink: Sink, folder: Path, records: Iterable[CaptureRecord], which: str = "written"
) -> None:
    """Require that just these records are found, whole."""
    found = _read(sink, folder)
    steps = set()
    for record in records:
        steps.add(record.step)
        _require_numbers(sink, found, record, which)
    more = [str(step) for step in found if step not in steps]
    require(not more, f"`read_back` of the {sink.name} sink finds step {', '.join(more)}, never written")


def _require_numbers(sink: Sink, found: Mapping[Any, Any], record: CaptureRecord, which: str) -> None:
    of = _of(record.step)
    is_found = record.step in found
    require(is_found, f"the {sink.name} sink lost the record {of} ({which}): `read_back` does not find it")
    numbers = found[record.step]
    are_numbers = isinstance(numbers, Mapping)
    require(are_numbers, f"`read_back` finds {numbers!r} {of}: a mapping from keys to numbers was expected")
    for key, value in keys.numbers(at_detail(record, getattr(sink, "detail", "full"))):
        read = numbers.get(key)
        require(read is not None, f"the {sink.name} sink lost {key} {of}, which is {value} ({which})")
        is_equal = isinstance(read, Real) and math.isclose(read, value, rel_tol=PRECISION)
        require(is_equal, f"the {sink.name} sink changed {key} {of} from {value} to {read} ({which})")


def _of(step: int | None) -> str:
    return "without a step" if step is None else f"of step {step}"


def _content(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
