"""Help, version and shell completion."""

import re
import shlex
from dataclasses import replace

import pytest

import fno_telemetry as ft
from fno_telemetry.records import freeze_mapping
from fno_telemetry_cli.app import COMMANDS, load_command
from fno_telemetry_cli.options.panels import COMMON, MOST_NEEDED, OTHER


def examples_of(command):
    """Return the command lines in the help of a command."""
    return re.findall(rf"^.+: (fno-telemetry {command}\b.*)$", load_command(command).help, re.MULTILINE)


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


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_run(run, captured, command):
    """In a folder with the input, a report in `out`, and two reports of one run in `before` and `after`."""
    record = ft.load_report("out/activation_report.json")
    for step, folder in enumerate(("before", "after")):
        summary = freeze_mapping({**record.summary, "checkpoint_step": step, "step_kind": "step"})
        ft.JsonFile(f"{folder}/activation_report.json").write(replace(record, summary=summary))
    if command == "capture":
        (captured / "activation_report.json").unlink()
    lines = examples_of(command)
    assert len(lines) >= 2
    for line in lines:
        result = run(*shlex.split(line)[1:])
        assert result.code == 0, result.err
        assert result.out


def panels(text):
    """Return the options of each panel of a help text."""
    found = {}
    for line in text.splitlines():
        if heading := re.match(r"╭─ (.+?) ─", line):
            options = found.setdefault(heading[1], [])
        elif option := re.match(r"│ (--\S+)", line):
            options.append(option[1])
    return found


def test_every_command_of_ours_says_which_options_most_people_need():
    assert [*MOST_NEEDED] == ["capture", "view", "compare", "diagnose", "merge", "map", "plugins"]


@pytest.mark.parametrize("command", MOST_NEEDED)
def test_the_options_that_most_people_need_come_first(run, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "160")
    found = {name: options for name, options in panels(run(command, "--help").out).items() if options}
    names = list(found)
    assert names[0] == COMMON
    assert names[-1] == OTHER
    assert tuple(found[COMMON]) == MOST_NEEDED[command]
    everything = [option for options in found.values() for option in options]
    assert len(everything) == len({*everything})


@pytest.fixture
def complete(run, monkeypatch):
    """Ask as bash does: complete the last of these words."""

    def ask(words: str, shell: str = "bash") -> list[str]:
        monkeypatch.setenv("_FNO_TELEMETRY_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", f"fno-telemetry {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"fno-telemetry {words}")
        result = run()
        assert (result.code, result.err) == (0, "")
        return [line for line in result.out.splitlines() if line]

    return ask


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("diagnose --rule dead_l", ["dead_layer"]),
        ("diagnose out --fail-on w", ["warning"]),
        ("capture --detail o", ["overview"]),
        ("capture --budget l", ["light"]),
        ("capture --loss r", ["relative_l2"]),
        ("capture --wandb-mode of", ["offline"]),
        ("merge --sink t", ["tensorboard"]),
        ("compare --wandb-layout p", ["per-checkpoint"]),
        ("view out --layers fno_blocks.1.s", ["fno_blocks.1.spectral"]),
        ("view out/activation_report.json --layers lifter.a", ["lifter.act"]),
        ("view out --sort low_f", ["low_frequency_fraction"]),
        ("view out --sort ro", ["role"]),
        ("view out --sort grad_n", []),  # which this report does not have
        ("view --sort grad_nor", ["grad_norm"]),
        ("view train.npz --layers f", []),
        ("view nowhere --layers f", []),
    ],
)
def test_names_are_completed(complete, captured, words, expected):
    assert complete(words) == expected


def test_layers_of_a_history_are_completed_too(complete, folder, record):
    ft.HistoryFile("run/history.jsonl").write(record)
    assert complete("view run --layers lif") == complete("view run/history.jsonl --layers lif")
    assert "lifter" in complete("view run --layers lif")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_too(complete, captured, monkeypatch, shell):
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert "fno_blocks.1.spectral" in "\n".join(complete("view out --layers fno_blocks.1.s", shell))
