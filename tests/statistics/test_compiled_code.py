"""Compiled loops give their numbers whatever becomes of the folder in which their code is kept."""

import errno
import importlib.util
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed")
caching = pytest.importorskip("numba.core.caching")
compiled_loops = pytest.importorskip("fno_telemetry.statistics.kernels.compiled_loops")

VALUES = [np.arange(6, dtype=dtype) for dtype in (np.float32, np.float64)]
OPERATIONS = ("_load_index", "_save_index", "_load_data", "_save_data")
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "something else": lambda content: pickle.dumps(numba.__version__) + pickle.dumps(7),
}


@pytest.fixture(autouse=True)
def kernels_in_use() -> None:
    """Each test compiles loops of its own, so it runs once."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which numba keeps code."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "code"))
    return tmp_path / "code"


def total(values: Any) -> Any:
    found = 0.0
    for i in range(values.size):
        found += values[i]
    return found


def run(loop: Any) -> tuple[int, int]:
    """Check the numbers for two types of values; return for how many of them code was on disk, or was not."""
    for _ in range(2):
        assert [loop(values) for values in VALUES] == [15, 15]
    return sum(loop.stats.cache_hits.values()), sum(loop.stats.cache_misses.values())


def run_anew() -> tuple[int, int]:
    """Do so as the next process would."""
    return run(compiled_loops._compile(total))


def replace_by_a_file(folder: Path) -> None:
    """Make whatever is read in a folder, or written into it, fail for every user."""
    shutil.rmtree(folder)
    folder.write_text("no folder any more")


def test_code_is_kept_for_the_next_process(folder: Path) -> None:
    assert run_anew() == (0, 2)
    assert len(list(folder.rglob("*.nbc"))) == 2
    assert run_anew() == (2, 0)


def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert run_anew() == run_anew() == (0, 2)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_disk_that_fails_at_the_first_call_costs_no_number(
    operation: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on the disk")

    monkeypatch.setattr(caching.IndexDataCacheFile, operation, fail)
    run_anew()
    run_anew()
    monkeypatch.undo()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    run_anew()
    assert run_anew() == (2, 0)


def test_a_folder_that_vanishes_is_made_again(folder: Path) -> None:
    loop = compiled_loops._compile(total)
    shutil.rmtree(folder)
    assert run(loop) == (0, 2)
    assert run_anew() == (2, 0)


def test_a_folder_that_can_be_used_no_more_costs_no_number(folder: Path) -> None:
    loop = compiled_loops._compile(total)
    replace_by_a_file(folder)
    assert run(loop) == (0, 2)


@pytest.mark.parametrize("suffix", [".nbi", ".1.nbc"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_costs_no_number_and_is_replaced(damage: str, suffix: str, folder: Path) -> None:
    run_anew()
    [path] = folder.rglob(f"*{suffix}")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert run_anew() == (0, 2)
    assert run_anew() == (2, 0)


def test_a_damaged_file_that_cannot_be_replaced_costs_no_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_anew()
    [path] = folder.rglob("*.nbi")
    path.write_bytes(b"")

    def fail(*arguments: object) -> None:
        raise OSError(errno.EROFS, "the disk can only be read")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", fail)
    assert run_anew() == (0, 2)
    assert path.read_bytes() == b""


def test_kernels_give_their_numbers_on_a_disk_that_fails(folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("loops_of_a_test", compiled_loops.__file__)
    assert spec is not None and spec.loader is not None
    loops = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loops)
    replace_by_a_file(folder)
    values = np.arange(12, dtype=np.float32)
    assert loops.energy_of_change(values, 2 * values) == 506
