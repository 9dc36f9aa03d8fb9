"""TOML files: read within bounds, or refused in one line and at once, wherever a path of one is taken."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fno_telemetry as ft
from fno_telemetry.comparison import read_thresholds
from fno_telemetry.diagnosis import read_rule_thresholds
from fno_telemetry.files import DEEPEST, parse_toml

READERS: dict[str, Callable[[Path], Any]] = {
    "a map": ft.read_map,
    "thresholds of compare": read_thresholds,
    "thresholds of rules": read_rule_thresholds,
}

REFUSED = {
    "lists nested deeply": "a = " + "[" * 2000 + "]" * 2000,
    "lists nested deeper than allowed": "a = " + "[" * DEEPEST + "]" * DEEPEST,
    "tables nested deeply": "a = " + "{b=" * 500 + "1" + "}" * 500,
    "a key of many parts": ".".join(["key"] * 30_000) + " = 1",
    "a key of many quoted parts": " . ".join(['"k"', "'l'"] * 10_000) + " = 1",
    "a header of many parts": "[" + ".".join(["key"] * 30_000) + "]",
    "a number of many digits": "a = " + "7" * 6000,
    "a hexadecimal number of many digits": "a = 0x" + "e" * 6000,
    "a number beyond 64 bits": "a = 36893488147419103232",
    "a number beyond float64": "a = 1e400",
    "a file of a million bytes and more": "a = 1\n" + "#" * 2**20,
    "a null character": "a = \0",
    "a date that is none": "a = 2026-13-01",
    "no TOML": "a =",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_a_parser_gives_up_on_is_refused_in_one_line(tmp_path, name, reader):
    path = tmp_path / "file.toml"
    path.write_text(REFUSED[name])
    started = time.process_time()
    with pytest.raises(ft.TelemetryError) as raised:
        READERS[reader](path)
    assert time.process_time() - started < 5
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < len(str(path)) + 150


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [b"a = \xff", b"\xff\xfea\x00", b"\x80\x04\x95"])
def test_what_is_no_text_is_refused_in_one_line(tmp_path, data, reader):
    path = tmp_path / "file.toml"
    path.write_bytes(data)
    with pytest.raises(ft.TelemetryError, match=r"file\.toml: cannot be read: it is not UTF-8 text"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, reader):
    path = tmp_path / "file.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ft.TelemetryError, match=rf"cannot be read: a .*{kind}; expected a TOML file"):
        READERS[reader](path)


def test_all_that_toml_allows_within_the_bounds_is_read():
    deep = "[" * (DEEPEST - 2) + "1" + "]" * (DEEPEST - 2)
    text = f'a = {deep}\nb = [inf, -inf, 18446744073709551615, "x.y.z"]\n"c d".e = 1e308\nf = 2026-11-29\n'
    document = parse_toml(text)
    assert document["b"] == [float("inf"), -float("inf"), 2**64 - 1, "x.y.z"]
    assert document["c d"] == {"e": 1e308}
    assert str(document["f"]) == "2026-11-29"


def test_a_byte_order_mark_does_not_matter(tmp_path):
    path = tmp_path / "file.toml"
    path.write_bytes(b"\xef\xbb\xbf[compare]\nscale = 7.0\n")
    assert read_thresholds(path).scale == 7


def test_a_path_with_a_null_character_is_refused_in_one_line():
    with pytest.raises(ft.MapError, match="no path: embedded null byte"):
        ft.read_map("a\0b.toml")
