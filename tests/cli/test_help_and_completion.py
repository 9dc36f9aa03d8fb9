"""Help, version and shell completion."""

import pytest

import fno_telemetry as ft
from fno_telemetry_cli.app import COMMANDS


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example_and_fits(run, monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = run(*command.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Example: fno-telemetry {command}" in result.out
    assert max(len(line) for line in result.out.splitlines()) <= columns
    assert "list[str]" not in result.out


def test_help_is_not_taken_for_markup(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert "TOML file with thresholds, in a table [compare]." in run("compare", "--help").out
    assert "JSON is always written" not in run("compare", "--help").out


def test_without_a_command_there_is_help(run):
    result = run()
    assert (result.code, result.err) == (0, "")
    assert all(command in result.out for command in COMMANDS)


def test_the_version_is_the_packages(run):
    assert run("--version").out == f"fno-telemetry {ft.__version__}\n"


def test_an_option_of_a_later_version_does_not_exist(run, folder):
    assert "--pdf" in run("view", "out", "--pdf", "x").err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ca", ["capture"]),
        ("co", ["compare"]),
        ("capture --out", ["--output", "--output-json-name"]),
        ("capture --architecture h", ["hybrid"]),
        ("capture --sink json,te", ["json,tensorboard"]),
    ],
)
def test_the_shell_completes(run, monkeypatch, words, expected):
    monkeypatch.setenv("_FNO_TELEMETRY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"fno-telemetry {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    result = run()
    assert (result.code, result.out.split(), result.err) == (0, expected, "")


def test_the_completion_script_is_for_this_command(run, monkeypatch):
    # Which shell it is, is found among the processes that started this one; a test runner may have none.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    result = run("--show-completion")
    assert (result.code, result.err) == (0, "")
    assert "_FNO_TELEMETRY_COMPLETE=" in result.out
