"""Files changed at random are read right or refused; benchmarks/mutated_files.py tries thousands."""

from pathlib import Path

import pytest

from support.mutated_files import find_failures, make_seeds


@pytest.mark.parametrize("name", make_seeds())
def test_a_changed_file_is_read_right_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    assert list(find_failures(name, 30, tmp_path)) == []
