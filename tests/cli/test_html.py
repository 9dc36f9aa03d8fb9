"""`--html FILE` of view, diagnose, compare and capture: a page, written whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.diagnosis import example_records
from fno_telemetry.records import freeze_mapping
from fno_telemetry.testing import example_record
from support.hostile_text import make_evil_reports, shows_only_what_is_seen
from support.html_pages import Page

SUMMARY = {"architecture": "fno", "channels": 1, "n_modules": 12, "n_parameters": 9, "device": "cpu"}
SUMMARY |= {"dtype": "float32", "weights": "a.pt"}


@pytest.fixture
def run_folder(folder) -> Path:
    """The reports of a run that breaks at step 2, written with the last one first."""
    run = [example_records.set_step(example_records.healthy_record(), step) for step in range(4)]
    place = run[0].modules[3].name
    run[2:] = [example_records.change_module(record, place, rms=1e6, abs_p99=1e7) for record in run[2:]]
    for record in reversed(run):
        whole = replace(record, summary=freeze_mapping({**record.summary, **SUMMARY}))
        report.write(whole, folder / "run" / f"{record.label}.json")
    return folder / "run"


def read(path: str = "page.html") -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


def test_view_writes_a_page_of_a_report(run, folder):
    report.write(example_record.example(), "one.json")
    result = run("view", "one.json", "--html", "page.html")
    assert (result.code, result.out, result.err) == (0, "page: page.html\n", "")
    parsed = read()
    assert parsed.loads() == []
    assert "Profile by depth" in parsed.headings()
    assert "lifter" in parsed.text
    first = Path("page.html").read_bytes()
    assert run("view", "one.json", "--html", "page.html", "--quiet").code == 0
    assert Path("page.html").read_bytes() == first


def test_view_writes_a_page_of_a_run_in_the_order_of_its_steps(run, run_folder):
    assert run("view", run_folder, "--html", "page.html").code == 0
    parsed = read()
    assert parsed.headings()[0] == "Over the steps"
    assert "4 records, step 0 to step 3" in parsed.text


def test_view_writes_a_page_of_a_history_or_of_one_of_its_steps(run, folder):
    for step in (0, 10, 20):
        report.append_to_history(example_record.at_step(example_record.example(), step), "history.jsonl")
    assert run("view", "history.jsonl", "--html", "page.html").code == 0
    assert "3 records, step 0 to step 20" in read().text
    assert run("view", "history.jsonl", "--step", 10, "--html", "page.html").code == 0
    assert "Over the steps" not in read().headings()


def test_with_json_the_report_is_printed_too(run, folder):
    report.write(example_record.example(), "one.json")
    result = run("view", "one.json", "--html", "page.html", "--json")
    assert result.document["schema"] == "fno-telemetry/1"
    assert "lifter" in read().text


def test_diagnose_writes_its_findings_first_and_names_the_options(run, run_folder):
    result = run("diagnose", run_folder, "--html", "page.html", "--fail-on", "never")
    assert result.code == 0
    assert "page: page.html" in result.err
    parsed = read()
    assert parsed.headings()[:2] == ["Findings", "Over the steps"]
    [worst, *_] = [line for line in result.out.splitlines() if line.startswith(("error", "warning"))]
    assert worst.split("  ")[-2 if " at " in worst else -1].strip().split()[0] in parsed.text
    assert "What could not be judged" in parsed.text
    assert "--baseline" in parsed.text
    assert run("diagnose", run_folder, "--html", "page.html").code == 1


def test_compare_writes_its_verdict(run, run_folder):
    result = run("compare", run_folder, "--html", "page.html")
    assert result.code == 1
    assert "page: page.html" in result.err
    assert result.out.splitlines()[0] in read().text
    two = run("compare", run_folder / "step0.json", run_folder / "step3.json", "--html", "page.html")
    assert two.code == 1
    parsed = read()
    assert parsed.headings()[0] == "What changed"
    assert two.out.splitlines()[0] in parsed.text


def test_two_reports_are_shown_in_the_order_in_which_they_were_given(run, run_folder):
    line = (run_folder / "step3.json", run_folder / "step0.json", "--html", "page.html", "--fail-on", "never")
    assert run("compare", *line).code == 0
    assert "Rings are step 3, dots step 0." in read().text
    assert run("compare", "--group", run_folder / "step3.json", run_folder / "step0.json", *line).code == 0
    assert "Over the steps" not in read().headings()


def test_capture_writes_a_page_of_what_it_captured(run, folder, small):
    line = ("capture", "--input", "train.npz", "--output", "out", *small)
    result = run(*line, "--html", "page.html", "--diagnose")
    assert result.code == 0, result.err
    assert "page: page.html" in result.err
    parsed = read()
    assert parsed.headings()[:2] == ["Findings", "Profile by depth"]
    assert str(folder) not in parsed.text
    assert run(*line, "--force", "--html", "page.html", "--redact").code == 0
    assert "train.npz" not in read().text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("view", "one.json", "--html", "one.json"), "--html one.json: a file that is no HTML page is there"),
        (("view", "one.json", "--html", "."), "a folder is there"),
        (("view", "one.json", "--html", "one.json/page.html"), "not a folder"),
        (("view", "one.json", "--html", "page.html", "--wandb"), "give --html or --wandb, not both"),
        (("view", "one.json", "--html", "page.html", "--tensorboard"), "give --html or --tensorboard"),
        (("view", "none.json", "--html", "page.html"), "none.json: no such file"),
        (("diagnose", "--explain", "dead_layer", "--html", "page.html"), "--explain"),
        (("compare", "one.json", "one.json", "--html", "one.json"), "no HTML page"),
        (
            ("capture", "--input", "train.npz", "--output", "out", "--html", "page.html", "--dry-run"),
            "--dry-run",
        ),
        (("capture", "--input", "train.npz", "--output", "out", "--html", "train.npz"), "no HTML page"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_nothing_is_written(run, folder, arguments, reason):
    report.write(example_record.example(), "one.json")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = run(*arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert reason in result.err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not Path("out").exists()


def test_reports_without_steps_are_no_series(run, folder):
    for name in ("a", "b"):
        report.write(example_record.at_step(example_record.example(), None), f"two/{name}.json")
    result = run("view", "two", "--html", "page.html")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "name one report" in result.err


def test_a_missing_extra_is_one_line_before_anything_runs(spawn, folder):
    for command in (
        ("view", "one.json"),
        ("diagnose", "one.json"),
        ("compare", "one.json", "one.json"),
        ("capture", "--input", "train.npz", "--output", "out"),
    ):
        report.write(example_record.example(), "one.json")
        program = "import sys; sys.modules['jinja2'] = None; from fno_telemetry_cli.app import main; main()"
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-c", program, *command, "--html", "page.html"], capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "fno-telemetry: A page needs jinja2 and matplotlib: pip install 'fno-telemetry[html]'.\n"
        )
        assert not Path("page.html").exists()
        assert not Path("out").exists()


def test_texts_of_hostile_reports_are_shown_printable(run, folder):
    paths = []
    for number, document in enumerate(make_evil_reports()):
        paths.append(Path(f"{number}.json"))
        paths[-1].write_text(json.dumps(document))
    for command in (("view", paths[0]), ("diagnose", *paths), ("compare", *paths)):
        result = run(*command, "--html", "page.html")
        assert result.code in (0, 1), result.err
        written = Path("page.html").read_text(encoding="utf-8")
        assert "evil" in written
        assert shows_only_what_is_seen(written)
        assert Page(written).loads() == []


def test_a_page_that_fails_after_a_capture_is_code_3_and_the_report_stays(run, folder, small, monkeypatch):
    def fail(*_: object) -> None:
        raise ft.ReportError("page.html: cannot be written: No space left on device")

    monkeypatch.setattr("fno_telemetry.page.writing.render_page", fail)
    result = run("capture", "--input", "train.npz", "--output", "out", *small, "--html", "page.html")
    assert result.code == 3
    assert "the page failed, the report is written" in result.err
    assert ft.load_report("out/activation_report.json")
