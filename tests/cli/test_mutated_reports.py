"""Damaged and hostile reports and TOML files, a few of those that benchmarks/mutated_reports.py tries."""

from support import mutated_reports


def test_no_mutated_file_ends_in_a_traceback_a_wait_or_a_code_that_means_worse(tmp_path):
    assert list(mutated_reports.find_breaches(60, 1, tmp_path)) == []
