"""Captures into one folder at the same time, and after ones that were killed."""

from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry import locks
from fno_telemetry_cli.capturing.folder_claims import claim_reports

LINE = ("capture", "-q", "--input", "train.npz", "--output", "out", "--model", "cli_networks:Plain")


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_of_two_captures_of_one_report_the_later_is_refused(run, folder):
    with claim_reports(Path("out"), ["activation_report.json"], force=False):
        before = names("out")
        result = run(*LINE)
        assert (result.code, result.out, names("out")) == (2, "", before)
        assert result.err.startswith(
            "fno-telemetry: out/activation_report.json: another capture is writing it"
        )
        assert run(*LINE, "--output-json-name", "other.json").code == 0
        assert run(*LINE, "--force").code == 0
    assert names("out") == ["activation_report.json", "activation_report.log", "other.json", "other.log"]
    assert run(*LINE).err.startswith("fno-telemetry: out/activation_report.json exists; add --force")


def test_a_report_that_another_capture_finishes_meanwhile_is_not_replaced(run, folder, monkeypatch):
    claimed = claim_reports

    def finish_another(*arguments, **keywords):
        ft.JsonFile("out/activation_report.json").write(ft.load_report("earlier/activation_report.json"))
        return claimed(*arguments, **keywords)

    assert run(*LINE, "--output", "earlier").code == 0
    monkeypatch.setattr("fno_telemetry_cli.commands.capture.claim_reports", finish_another)
    result = run(*LINE)
    assert (result.code, names("out")) == (2, ["activation_report.json"])
    assert "exists; add --force" in result.err


def test_what_killed_captures_left_is_removed_by_the_next_one(run, folder):
    hidden = locks.hidden_folder(Path("out/tensorboard/out"), Path("out"))
    hidden.end()
    for left in (
        ".activation_report.json.01234567.part",
        ".fno-telemetry.89abcdef.capture",
        ".fno-telemetry.lock",
    ):
        Path("out", left).write_text('["activation_report.json"]')
    for left in ("wandb/run-1/fno-telemetry/.run.json.01234567.part", "tensorboard/demo/.fno-telemetry.lock"):
        Path("out", left).parent.mkdir(parents=True)
        Path("out", left).touch()
    running = locks.try_lock(Path("out/.other.json.01234567.part"))
    assert run(*LINE).code == 0
    assert list(Path("out").rglob(".*")) == [running.path]
    running.remove()


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path):
    with claim_reports(tmp_path / "a" / "b", ["x.json"], force=False):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with (
        pytest.raises(ft.OptionError, match=r"--output .*out: cannot be written: No space left on device"),
        claim_reports(tmp_path / "out", ["x.json"], force=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
