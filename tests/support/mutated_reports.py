"""Reports and TOML files as damage or a stranger could make them, and what the command may do with them.

It ends with 0, or with 2 and one line, or with 1 for something that it found: within seconds, below 1 GB, and
without printing a character that a terminal would obey. benchmarks/mutated_reports.py tries thousands.
"""

import contextlib
import copy
import io
import json
import random
import resource
import signal
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.testing import example_record
from fno_telemetry_cli.app import main

SECONDS = 10
"""No file takes longer."""

MOST_KIB = 2**20
"""The memory of the process, at most."""

TOML = """\
[compare]
scale = 3.0
far = 50
[diagnose.dead_layer]
near_zero = 1e-9
[other]
texts = ["a", 'b', \"\"\"c\"\"\"]
when = 2026-11-29T10:00:00Z
table = {x = 1, y.z = [1, [2, 3]]}
"""

MAP = """\
schema = "fno-telemetry-map/1"
[[modules]]
name = "lifter"
role = "lifting"
spatial_axes = [2, 3]
channel_axis = 1
"""

_HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u200b\u2066x\nfno-telemetry: nothing found\r\x00\ud800"
_HUGE, _LONG, _DEEP = "@huge@", "@long@", "@deep@"  # written into the text, as json.dumps cannot
_LITERALS = {
    f'"{_HUGE}"': "9" * 5000,
    f'"{_LONG}"': "9" * 400,
    f'"{_DEEP}"': '{"a":[' * 450 + "1" + "]}" * 450,
}
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**64,
        -(2**80),
        10**29,
        0.5,
        -0.0,
        1.5,
        1e308,
        -1e308,
        5e-324,
        1e-9,
    ),
    *(float("nan"), float("inf"), "", "x", "1", _HOSTILE, "step", "\u3164", "x" * 10_000),
    *([], [1], [[]], [None], ["x"], [1, 2, 3], {}, {"a": 1}, {"name": "x"}, {_HOSTILE: _HOSTILE}),
    *(_HUGE, _LONG, _DEEP),
)
_OF_FEW_VALUES = (
    "schema",
    "role",
    "values_of",
    "severity",
    "class",
    "step_kind",
    "low_cutoff",
    "high_cutoff",
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    b"[" * 300,
    b"{" * 300,
    b'"',
    b",",
    b"9" * 400,
)
_TOML_PIECES = (
    *("\0", "\x1b[2J", "\u202e", "[" * 300, "[[", "]]", "{", "}", '"', "'", '"""', "=", ".", "#", "\n", "\r"),
    *(".".join("a" * 200), "9" * 5000, "0x" + "f" * 400, "1e999", "nan", "-inf", "true", "1979-05-27", "[x]"),
    *(
        "\ufeff",
        "\\u0000",
        "\\ud800",
        "[compare]",
        "[diagnose]",
        "name = 1\n",
        "[[modules]]",
        "{a={a={a=1}}}",
    ),
)


def seeds() -> list[dict[str, Any]]:
    """Return reports with everything that one can hold."""
    record = example_record.add_findings(example_record.example())
    return [report.as_document(each) for each in (record, example_record.at_step(record, 2000))]


def mutate_document(document: dict[str, Any], draw: random.Random) -> bytes:
    """Return the text of a report with one to three changes in its values, its keys or its bytes."""
    changed = copy.deepcopy(document)
    if draw.random() < 0.5:
        _distort(changed, draw)
    else:
        for _ in range(draw.choice((1, 1, 2, 3))):
            draw.choice((_replace, _replace, _replace, _remove, _add, _repeat))(changed, draw)
    text = json.dumps(changed)
    for name, literal in _LITERALS.items():
        text = text.replace(name, literal)
    data = text.encode("utf-8", "surrogatepass")
    return _damage(data, draw) if draw.random() < 0.2 else data


def mutate_toml(text: str, draw: random.Random) -> bytes:
    """Return a TOML file with one to three pieces put in, taken out or repeated."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, length = draw.randrange(len(text) + 1), draw.choice((0, 0, 1, 5, 20))
        piece = draw.choice((*_TOML_PIECES, text[at : at + 30]))
        text = text[:at] + piece + text[at + length :]
    data = text.encode("utf-8", "surrogatepass")
    return _damage(data, draw) if draw.random() < 0.2 else data


def _containers(value: Any) -> Iterator[Any]:
    """Yield the value and all that is in it, if it can hold others."""
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _choose(document: Any, draw: random.Random) -> tuple[Any, Any]:
    """Return a part of the document that is not empty, and a key or an index of it."""
    found = [each for each in _containers(document) if each]
    # Most parts are histograms; every depth gets its share.
    part = draw.choice(draw.choice(([document], [p for p in found if isinstance(p, dict)], found)))
    return part, draw.choice(list(part) if isinstance(part, dict) else range(len(part)))


def _distort(document: Any, draw: random.Random) -> None:
    """Replace some numbers by numbers, and texts by texts, so that a reader has to take them."""
    share = draw.choice((0.002, 0.02, 0.2))
    # Lists are edges, sizes and counts that belong together.
    for part in [each for each in _containers(document) if isinstance(each, dict)]:
        for key, value in part.items():
            if draw.random() > share or key in (
                "schema",
                "role",
                "values_of",
                "severity",
                "class",
                "step_kind",
            ):
                continue
            if type(value) is int:
                part[key] = draw.choice((0, 1, 2, 3, 10**29, 2**63))
            elif type(value) is float and 0 <= value <= 1:
                part[key] = draw.choice((0.0, 5e-324, 1e-9, 0.5, 1.0))
            elif type(value) is float:
                part[key] = draw.choice((0.0, 5e-324, 1e-9, 1.0, 1e200, 1e308, 1.7e308))
            elif isinstance(value, str):
                part[key] = draw.choice((_HOSTILE, "x", "output", value + "\n"))
            elif key == "counts":
                part[key] = [draw.choice((0, 1, 10**29)) for _ in value]
            elif key in ("edges", "bands", "band_edges", "axis_band_edges") and isinstance(value, list):
                part[key] = [min(each * 1e308, 1.7e308) for each in value]


def _replace(document: Any, draw: random.Random) -> None:
    part, key = _choose(document, draw)
    part[key] = copy.deepcopy(draw.choice(_VALUES))


def _remove(document: Any, draw: random.Random) -> None:
    part, key = _choose(document, draw)
    del part[key]


def _add(document: Any, draw: random.Random) -> None:
    part, _ = _choose(document, draw)
    value = copy.deepcopy(draw.choice(_VALUES))
    if isinstance(part, dict):
        part[draw.choice(("later", "name", "step", _HOSTILE, "rms"))] = value
    else:
        part.insert(draw.randrange(len(part) + 1), value)


def _repeat(document: Any, draw: random.Random) -> None:
    part, key = _choose(document, draw)
    if isinstance(part, list):
        part.append(copy.deepcopy(part[key]))
    else:
        part[draw.choice(list(part))] = copy.deepcopy(part[key])


def _damage(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    how = draw.randrange(4)
    if how == 0:
        return data[:at]
    if how == 1:
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    if how == 2:
        return data[:at] + draw.choice(_BYTES) + data[at:]
    return data[:at] + data[at + draw.randrange(1, 200) :]


def run(arguments: Sequence[object]) -> tuple[int, str, str]:
    """Call the command in this process; return its code and what it wrote to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(each) for each in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def find_breach(arguments: Sequence[object]) -> str | None:
    """Run the command; return which promise it broke, None if it kept all."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            code, out, err = run(arguments)
    except BaseException as error:  # noqa: BLE001 - whatever leaves the command would be a traceback
        return f"raised {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if "unexpected" in err or "Traceback" in err:
        return f"exit {code}: {err.strip()[:300]}"
    if code == 2 and (not err.startswith("fno-telemetry: ") or err.count("\n") != 1 or len(err) > 20_000):
        return f"exit 2, and no single line: {err[:300]!r}"
    if code == 1 and not _found_something(out):
        return f"exit 1, and nothing found: {err[:300]!r}"
    if code not in (0, 1, 2):
        return f"exit {code}: {err[:300]!r}"
    for line in (out + err).split("\n"):
        if hidden := [
            letter for letter in line if unicodedata.category(letter)[0] in "C" or letter in "\u2028\u2029"
        ]:
            return f"printed {hidden[:3]!r} in {line[:200]!r}"
    if (used := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) > MOST_KIB:
        return f"{used} KiB of memory"
    return None


def _found_something(out: str) -> bool:
    """Whether the JSON says that something is worse, or wrong; the only reasons for exit code 1."""
    document = json.loads(out)
    severe = [found for found in document.get("findings", ()) if found["severity"] != "note"]
    return bool(document.get("worse") or severe)


def commands(path: Path, whole: Path, draw: random.Random) -> list[object]:
    """Return a command line that reads the report at `path`; the one at `whole` is as it was written."""
    both = [path, whole] if draw.random() < 0.5 else [whole, path]
    choices: list[list[object]] = [
        ["view", path],
        ["view", path, "--json"],
        ["compare", *both, "--json", "--allow-different-input"],
        ["compare", *both, "--fail-on", "never", "--allow-different-input", "--all"],
        ["compare", *both, "--json", "--group"],
        ["diagnose", path, "--json"],
        ["diagnose", path, "--fail-on", "never"],
        ["diagnose", whole, "--baseline", path, "--json"],
        ["diagnose", *both, "--json"],
    ]
    return draw.choice(choices)


def toml_commands(path: Path, whole: Path, draw: random.Random) -> list[object]:
    """Return a command line that reads the thresholds at `path`."""
    command = draw.choice((["diagnose", whole], ["compare", whole, whole]))
    return [*command, "--thresholds", path, "--json"]


def find_breaches(number: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that broke a promise, and which; a file that kept all of them is removed."""
    draw, documents = random.Random(seed), seeds()
    whole = folder / "whole.json"
    whole.write_text(json.dumps(documents[0]))
    for index in range(number):
        if index % 4 == 3:
            path = folder / f"{seed}-{index}.toml"
            path.write_bytes(mutate_toml(TOML, draw))
            arguments = toml_commands(path, whole, draw)
        else:
            path = folder / f"{seed}-{index}.json"
            path.write_bytes(mutate_document(draw.choice(documents), draw))
            arguments = commands(path, whole, draw)
        breach = find_breach(arguments)
        if breach is None and path.suffix == ".toml":
            breach = _find_breach_of_map(path.with_suffix(".map.toml"), draw)
        if breach is None:
            path.unlink()
        else:
            yield " ".join(map(str, arguments)), breach


def _find_breach_of_map(path: Path, draw: random.Random) -> str | None:
    """Read a mutated map of roles, which the command would build a model for."""
    path.write_bytes(mutate_toml(MAP, draw))
    try:
        with contextlib.suppress(ft.MapError):
            ft.read_map(path)
    except Exception as error:  # noqa: BLE001 - anything else is a breach
        return f"read_map({path}) raised {type(error).__name__}: {error}"
    path.unlink()
    return None
