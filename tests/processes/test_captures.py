"""Captures by two and four processes with unequal shares: the record is that of one process."""

from typing import Any

import pytest

from support import process_captures
from support.alike_documents import list_differences
from support.process_groups import run_in_processes

ALIKE = (
    "capture_with_a_target",
    "capture_one_batch",
    "capture_lightly",
    "capture_with_a_layer_that_some_skip",
    "capture_with_holes",
)
FAILING = "capture_that_fails_in_one_process"
SECONDS = 90


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    return run_in_processes(
        "support.process_captures", (*ALIKE, FAILING), request.param, folder, seconds=SECONDS
    )


@pytest.mark.parametrize("name", ALIKE)
def test_the_record_is_that_of_one_process(found: list[dict[str, Any]], name: str, tmp_path: Any) -> None:
    alone = getattr(process_captures, name)(0, tmp_path)
    together = found[0][name]
    assert all(each[name] == together for each in found), "every process gets the same record"
    samples = together["provenance"]["processes"]["samples"]
    assert len(samples) == len(found) and sum(samples) == alone["summary"]["n_samples"]
    for place in (*together["modules"], together["input"]):
        ends = [end for pair in place.pop("process_extremes") for end in pair if end is not None]
        low, high = place["stats"]["min"], place["stats"]["max"]
        assert [min(ends), max(ends)] == [low, high] if ends else low is None
    assert list(list_differences(alone, together)) == []


def test_an_error_in_one_process_is_raised_in_all(found: list[dict[str, Any]]) -> None:
    errors = [each[FAILING] for each in found]
    assert ["RuntimeError", "too large"] in errors
    assert all(kind == "RuntimeError" or "failed: RuntimeError: too large" in text for kind, text in errors)
