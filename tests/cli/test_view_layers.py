"""`view`: which layers, in which order, and what of them fits on a screen."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

import fno_telemetry as ft
from fno_telemetry.records import FrozenMapping
from fno_telemetry.wording import to_encodable
from fno_telemetry_cli.showing.bars import bar, profile
from fno_telemetry_cli.showing.record_view import one_screen
from fno_telemetry_cli.showing.terminal import Screen

TERMINAL = Screen(80, 24, takes_blocks=True)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
SPARE = 4


def names(text):
    """Return the first word of each row of the tables."""
    return [line.split()[0] for line in text.splitlines() if re.match(r"[a-z(]\S*  ", line)]


def drawn(content, screen):
    """Return the lines that a terminal shows."""
    console = Console(file=(file := StringIO()), width=screen.width, height=screen.height, highlight=False)
    console.print(content)
    return file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("globs", "found"),
    [
        (["*.spectral"], [f"fno_blocks.{index}.spectral" for index in range(4)]),
        (["fno_blocks.1.act", "input"], ["input", "fno_blocks.1.act"]),
        (["fno_blocks.?"], [f"fno_blocks.{index}" for index in (0, 1, 2, 3, 0, 1, 2, 3)]),
    ],
)
def test_layers_are_chosen_by_the_names_that_the_user_wrote(run, captured, globs, found):
    line = [word for glob in globs for word in ("--layers", glob)]
    shown = [name for name in names(run("view", "out", *line).out) if name not in ("module", "block")]
    assert shown == found


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("head*", ["head", "head@1[amp]"]),
        ("head", ["head", "head@1[amp]"]),
        ("head@1*", ["head@1[amp]"]),
        ("head@1[amp]", ["head@1[amp]"]),
        ("*@1[amp]", ["head@1[amp]"]),
    ],
)
def test_a_glob_may_name_a_call_or_an_output(run, folder, record, glob, found):
    first, second, *_ = record.modules
    twice = (replace(first, name="head"), replace(second, name="head", call=1, item="amp"))
    ft.JsonFile("twice.json").write(replace(record, modules=twice, blocks=()))
    shown = [name for name in names(run("view", "twice.json", "--layers", glob).out) if name != "module"]
    assert shown == found


@pytest.mark.parametrize(("direction", "falls"), [("", True), (":desc", True), (":asc", False)])
def test_rows_are_sorted_by_any_number_which_then_is_a_column(run, captured, direction, falls):
    result = run("view", "out", "--sort", f"abs_mean{direction}", "--top", "5")
    modules = ft.load_report("out/activation_report.json").modules
    ranked = sorted(modules, key=lambda module: module.stats["abs_mean"], reverse=falls)
    assert names(result.out) == ["module", *(module.name for module in ranked[:5])]
    assert "abs_mean" in result.out
    assert result.err == f"5 of {len(modules)} modules, 0 of 4 blocks\n"


def test_an_undefined_number_comes_last_in_both_directions(run, folder, record, examples):
    ft.JsonFile("a.json").write(examples.with_stats(record, "lifter", rms=None))
    for direction in ("asc", "desc"):
        shown = names(run("view", "a.json", "--sort", f"rms:{direction}", "--layers", "*").out)
        assert shown[:-1].index("lifter") > 1


def test_rows_are_sorted_by_role_and_by_name(run, captured):
    rows = run("view", "out", "--sort", "role").out.partition("─\n")[2].splitlines()
    assert [row.split()[1] for row in rows[:6]] == ["lifting", *["spectral"] * 4, "local"]
    by_name = names(run("view", "out", "--sort", "name:desc", "--layers", "fno*").out)
    assert by_name[-4:] == [f"fno_blocks.{index}" for index in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--layers", "fno_blocs*"], "--layers fno_blocs*: no layer matches. Did you mean fno_blocks."),
        (["--layers", "*.act", "--layers", "nope"], "--layers nope: no layer matches. Known: input, "),
        (["--sort", "rmss"], "--sort rmss: no such key. Did you mean rms?"),
        (["--sort", "rms:down"], "--sort rms:down: expected rms, rms:asc or rms:desc"),
        (["--sort", "grad_norm"], "--sort grad_norm: no layer of this report has this number"),
        (["--top", "0"], "'--top'"),
        (["--top", "3", "--html", "page.html"], "--top is for the terminal"),
        (["--layers", "*", "--wandb"], "--layers is for tables; leave out --tensorboard and --wandb"),
    ],
    ids=" ".join,
)
def test_a_choice_that_cannot_be_made_is_one_line_and_exit_2(run, captured, line, words):
    result = run("view", "out", *line)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert len(result.err.splitlines()) == 1


def test_json_is_the_report_with_the_chosen_layers_in_their_order(run, captured):
    line = ("view", "out", "--json", "--layers", "fno_blocks.*", "--sort", "rms", "--top", "3")
    document = run(*line).document
    whole = json.loads((captured / "activation_report.json").read_text())
    chosen = [module["name"] for module in document["modules"]]
    of_blocks = [module for module in whole["modules"] if module["name"].startswith("fno_blocks.")]
    ranked = sorted(of_blocks, key=lambda module: -module["stats"]["rms"])
    assert document["modules"] == ranked[:3]
    assert document["blocks"] == []  # none has this number
    assert {key.rpartition("/")[0] for key in document["layers"]} == set(chosen)
    assert all(document[key] == whole[key] for key in whole if key not in ("modules", "blocks", "layers"))


def test_a_page_has_the_chosen_layers(run, captured):
    assert run("view", "out", "--layers", "fno_blocks.0*", "--html", "page.html").code == 0
    page = (captured.parent / "page.html").read_text()
    assert "fno_blocks.0.spectral" in page
    assert "fno_blocks.1.spectral" not in page


def test_a_choice_among_captures_names_one_of_them(run, captured):
    (captured.parent / "runs").mkdir()
    (captured.parent / "out").rename(captured.parent / "runs" / "a")
    result = run("view", "runs", "--layers", "*")
    assert (result.code, result.err) == (
        2,
        "fno-telemetry: --layers is for the tables of one capture; name a folder, such as runs/a\n",
    )


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("layers", "height"), [(4, 24), (60, 24), (60, 50), (200, 24)])
def test_a_network_of_any_depth_is_on_one_screen(record, examples, layers, height, width):
    deep = examples.large(record, layers)
    screen = Screen(width, height, takes_blocks=True)
    view = one_screen(deep, screen, SPARE)
    lines = drawn(view.content, screen)
    assert len(lines) <= height - SPARE
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("rms" in line for line in lines)


def test_what_fits_is_shown_whole_and_a_pipe_gets_all(record, examples):
    assert one_screen(record, Screen(120, 60, takes_blocks=True), SPARE).shown == len(record.modules)
    deep = examples.large(record, 60)
    assert one_screen(deep, Screen(120), SPARE).shown == len(deep.modules)


def test_a_deep_network_shows_where_a_number_is_lowest_and_highest(record, examples):
    deep = examples.large(record, 60)
    loud = deep.modules[50]
    louder = replace(loud, stats=FrozenMapping({**loud.stats, "rms": 1234.5}))
    deep = replace(deep, modules=tuple(louder if module is loud else module for module in deep.modules))
    view = one_screen(deep, Screen(120, 24, takes_blocks=True), SPARE)
    assert view.shown == 0
    [line] = [line for line in drawn(view.content, Screen(120, 24)) if line.startswith("rms ")]
    assert "1.23e+03" in line
    assert loud.place[-20:] in line


def test_notes_do_not_push_a_table_off_the_screen(record):
    noisy = replace(record, findings=(), warnings=tuple(f"warning number {index}" for index in range(40)))
    view = one_screen(noisy, TERMINAL, SPARE)
    lines = drawn(view.content, TERMINAL)
    assert len(lines) <= TERMINAL.height - SPARE
    assert lines[-4].startswith("diagnosed: ")
    assert re.fullmatch(r"and \d+ more lines: --all", lines[-1])


@pytest.mark.parametrize(
    ("share", "cells", "blocks", "ascii_only"),
    [
        (None, 4, "    ", "    "),
        (0.0, 4, "    ", "    "),
        (0.001, 4, "▏   ", "#   "),
        (0.5, 4, "██  ", "##  "),
        (1.0, 4, "████", "####"),
        (0.5, 1, "▄", "="),
        (1.0, 1, "█", "@"),
    ],
)
def test_a_bar_is_as_long_as_its_share(share, cells, blocks, ascii_only):
    assert bar(share, cells, TERMINAL).plain == blocks
    assert bar(share, cells, Screen(80, 24)).plain == ascii_only


def test_a_bar_of_what_should_be_low_is_coloured_by_its_size():
    styles = [bar(share, 4, TERMINAL, should_be_low=True).style for share in (0.1, 0.9)]
    assert styles == ["yellow", "red"]


def test_a_profile_of_many_layers_keeps_the_odd_one():
    assert profile([1.0, 0.5, None, 0.0], 1.0, 9, TERMINAL) == "█▅ ▁"
    values = [1.0] * 100
    values[57] = 0.0
    assert profile(values, 1.0, 10, TERMINAL) == "█████▁████"
    assert profile([None], 1.0, 9, TERMINAL) == ""


def test_signs_that_an_encoding_lacks_become_ascii():
    assert to_encodable("8×32 – ▁", "utf-8") == "8×32 – ▁"
    assert to_encodable("8×32 – …", "ascii") == "8x32 - ."
    assert to_encodable("8×32", "latin-1") == "8×32"


def in_a_terminal(columns, rows, *arguments, **environment):
    """Return what the command prints in a terminal of this size."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    given = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "fno_telemetry_cli", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env=given | {"TERM": "xterm-256color"} | environment,
    ) as running:
        os.close(child)
        printed = b""
        try:
            while data := os.read(parent, 65536):
                printed += data
        except OSError:  # how the end of a terminal's output is told on Linux
            pass
        running.wait(60)
    os.close(parent)
    return printed.decode().replace("\r\n", "\n")


def test_a_terminal_gets_bars_and_one_screen_and_a_file_neither(run, captured):
    shown = in_a_terminal(80, 24, "view", "out")
    assert "█" in shown
    assert "\x1b[36m" in shown
    assert len(shown.splitlines()) < 24
    assert shown.splitlines()[-1].count("6 of 27 modules listed; all: --all, some: --layers GLOB") == 1
    piped = run("view", "out").out
    assert not {"█", "▁", "\x1b"} & {*piped}
    assert len(piped.splitlines()) > 30


def test_without_colour_and_in_ascii_it_reads_the_same(captured):
    shown = in_a_terminal(80, 24, "view", "out", NO_COLOR="1", PYTHONIOENCODING="ascii")
    assert shown.isascii()
    assert not re.search(r"\x1b\[3\d", shown)
    assert "##" in COLOURS.sub("", shown)
    assert "?" not in shown
