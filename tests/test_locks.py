"""Locks end with their process, so what it left half-written is told from what is just being written."""

import os
import signal
from pathlib import Path

import pytest

from fno_telemetry import files, locks
from fno_telemetry.errors import ReportError

needs_forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without forks")


def killed(body) -> None:
    """Run `body` in a process of its own that is killed once it has returned."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        body()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_locked_once_until_the_lock_ends(tmp_path):
    first = locks.try_lock(tmp_path / "lock")
    assert first is not None
    assert locks.try_lock(tmp_path / "lock") is None
    first.remove()
    assert names(tmp_path) == []
    again = locks.try_lock(tmp_path / "lock")
    assert again is not None
    first.remove()  # once more, which must not end the other one
    assert locks.try_lock(tmp_path / "lock") is None
    again.end()
    assert names(tmp_path) == ["lock"]


def test_whoever_waits_too_long_is_told_so(tmp_path):
    with locks.locked(tmp_path / "lock", 1) as held, locks.locked(tmp_path / "lock", 0.1) as second:
        assert (held, second) == (True, False)
    assert names(tmp_path) == []


@needs_forks
def test_a_lock_ends_with_its_process_and_a_fork_of_it_has_no_share(tmp_path):
    killed(lambda: locks.try_lock(tmp_path / "lock"))
    left = locks.try_lock(tmp_path / "lock")
    assert left is not None
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        left.remove()  # not its own
        signal.pause()
    left.end()
    with locks.locked(tmp_path / "lock", 10) as held:  # the child may take a moment to let go
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert held


@needs_forks
def test_what_killed_processes_left_is_removed_and_what_is_being_written_is_not(tmp_path):
    def write():
        with files.whole_file(tmp_path / "report.json") as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    def fill():
        lock = locks.hidden_folder(tmp_path / "run", tmp_path)
        (lock.path.parent / "events").write_text("half")

    killed(write)
    killed(fill)
    assert len(names(tmp_path)) == 2
    (tmp_path / ".mine.part").write_text("no leftover: it has no random part")
    (tmp_path / ".linked.01234567.part").symlink_to(tmp_path.parent, target_is_directory=True)
    hidden = locks.hidden_folder(tmp_path / "run", tmp_path)
    with files.whole_file(tmp_path / "other.json") as part:
        part.write_text("whole")
        locks.remove_leftovers(tmp_path)
        running = {part.name, hidden.path.parent.name}
        assert set(names(tmp_path)) == running | {".mine.part", ".linked.01234567.part"}
    assert (tmp_path / "other.json").read_text() == "whole"
    hidden.end()
    locks.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".linked.01234567.part", ".mine.part", "other.json"]


def test_without_locks_in_the_file_system_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    left = tmp_path / ".report.json.01234567.part"
    left.write_text("half, or just being written")
    monkeypatch.setattr(locks, "fcntl", None)
    with files.whole_file(tmp_path / "report.json") as part:
        part.write_text("whole")
    with pytest.raises(ReportError, match="No space"), files.whole_file(tmp_path / "second.json"):
        raise OSError(28, "No space left on device")
    locks.remove_leftovers(tmp_path)
    with locks.locked(tmp_path / "lock", 0) as held:
        assert held
    assert names(tmp_path) == [left.name, "report.json"]
