"""What is imported late: nobody waits for torch to read a help text, or for numpy to see a report."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from fno_telemetry import report
from fno_telemetry.diagnosis import example_records
from fno_telemetry.records import freeze_mapping
from fno_telemetry_cli.app import COMMANDS, load_command

PROGRAM = """
import json, sys
from fno_telemetry_cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print(json.dumps([end.code, [*sys.modules]]), file=sys.stderr)
"""
OF_CAPTURES = ("torch", "safetensors", "tensorboard", "wandb")
OF_REPORTS = ("numpy", "msgspec", "fno_telemetry.comparison.pairs", "fno_telemetry.report.reading")


def modules_of(arguments, code=0, **environment):
    """Return what is imported when the command has run, which ends with this code."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    ended, modules = json.loads(done.stderr.splitlines()[-1])
    assert ended == code, done.stderr
    return set(modules)


@pytest.fixture
def run_folder(tmp_path):
    """A folder with the reports of three steps of a healthy run."""
    summary = {"architecture": "fno", "channels": 1, "n_modules": 12, "n_parameters": 9, "device": "cpu"}
    summary |= {"dtype": "float32", "weights": "a.pt"}
    for record in example_records.make_series(*[example_records.healthy_record()] * 3):
        whole = replace(record, summary=freeze_mapping({**record.summary, **summary}))
        report.write(whole, tmp_path / f"{record.label}.json")
    return tmp_path


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_that_works(command):
    modules = modules_of([*command.split(), "--help"])
    assert not modules & {*OF_CAPTURES, *OF_REPORTS}
    commands = {name for name in modules if name.startswith("fno_telemetry_cli.commands.")}
    assert commands == ({f"fno_telemetry_cli.commands.{command}"} if command else set())


def test_the_version_a_wrong_option_and_a_completion_import_nothing_that_works():
    heavy = {*OF_CAPTURES, *OF_REPORTS}
    assert not modules_of(["--version"]) & heavy
    assert not modules_of(["compare", "--nope"], code=2) & heavy
    words = {"_FNO_TELEMETRY_COMPLETE": "complete_bash", "COMP_WORDS": "fno-telemetry capture --ou"}
    assert not modules_of([], **words, COMP_CWORD="2") & heavy


def test_comparing_diagnosing_and_viewing_reports_import_only_what_reads_them(run_folder):
    assert not modules_of(["compare", str(run_folder)]) & set(OF_CAPTURES)
    for command in ("diagnose", "view"):
        assert not modules_of([command, str(run_folder)]) & {*OF_CAPTURES, "numpy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_all_commands_has_the_first_line_of_each(command):
    assert load_command(command).help.splitlines()[0] == COMMANDS[command][1]
