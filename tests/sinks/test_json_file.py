import json
from pathlib import Path

import pytest

from fno_telemetry import keys, report
from fno_telemetry.errors import ReportError
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.json_file import JsonFile


def test_with_a_path_a_record_is_written_without_open(tmp_path: Path, record):
    JsonFile(tmp_path / "new" / "a report.json").write(record)
    assert record == report.load_report(tmp_path / "new" / "a report.json")


def test_without_a_path_the_run_says_where(tmp_path: Path, record):
    sink = JsonFile()
    sink.open(RunContext(tmp_path / "out", report_name="second.json"))
    sink.write(record)
    assert [tmp_path / "out" / "second.json"] == list((tmp_path / "out").iterdir())


def test_a_given_path_wins_over_the_run(tmp_path: Path, record):
    sink = JsonFile(str(tmp_path / "mine.json"))
    sink.open(RunContext(tmp_path / "out"))
    sink.write(record)
    assert [tmp_path / "mine.json"] == list(tmp_path.iterdir())


def test_without_path_and_run_writing_is_refused(record):
    with pytest.raises(ReportError, match=r"JsonFile\(path\)"):
        JsonFile().write(record)


def test_nothing_is_on_disk_before_the_first_record(tmp_path: Path):
    sink = JsonFile()
    sink.open(RunContext(tmp_path / "out"))
    assert sink.close(ok=True) == []
    assert list(tmp_path.iterdir()) == []


def test_a_later_record_replaces_the_report(tmp_path: Path, record, examples):
    sink = JsonFile(tmp_path / "report.json")
    sink.write(record)
    sink.write(examples.at_step(record, 2000))
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["checkpoint_step"] == 2000


def test_closing_says_how_to_look_in_words_that_a_shell_takes(tmp_path: Path, record):
    sink = JsonFile(tmp_path / "my report.json")
    sink.write(record)
    assert sink.close(ok=True) == [f"fno-telemetry view '{tmp_path}/my report.json'"]


@pytest.mark.parametrize("name", ["folder", "file/report.json"])
def test_a_path_that_cannot_be_written_is_refused_when_opening(tmp_path: Path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ReportError, match="cannot be written: "):
        JsonFile(tmp_path / name).open(RunContext(tmp_path))
    assert (tmp_path / "file").read_text() == "kept"


def test_all_reports_in_the_folder_are_read_back_and_other_files_left_out(tmp_path: Path, record, examples):
    sink = JsonFile()
    sink.open(RunContext(tmp_path, series=True))
    sink.write(record)
    sink.write(examples.at_step(record, None))
    sink.close(ok=True)
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "half.json").write_text('{"schema": "fno-telemetry/1"')
    numbers = dict(keys.numbers(record))
    assert numbers["spectral_local_ratio/fno_blocks/0"] == 0.25
    assert JsonFile().read_back(tmp_path) == {1000: numbers, None: numbers}
    [path] = tmp_path.glob("*.step1000.json")
    assert JsonFile(path).read_back(tmp_path / "nowhere") == {1000: numbers}
