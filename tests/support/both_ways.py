"""Captures each model twice, as planned and followed function by function, and compares the records."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.tracing.nested_tensors import copy_tensors

WHY = "this test wants it"


def capture_both_ways(capture: Callable[..., ft.CaptureRecord]) -> Callable[..., ft.CaptureRecord]:
    """Return a `capture` that first follows every function, and checks that a plan gives the same numbers."""

    def run(model: nn.Module, batches: Any, **options: Any) -> ft.CaptureRecord:
        if not isinstance(batches, torch.Tensor | tuple | dict):
            batches = list(batches)  # an iterator can be used only once
        followed: ft.CaptureRecord | Exception
        try:
            found = {name: options[name] for name in ("forward", "given") if name in options}
            followed_plan = replace(ft.plan(model, copy_tensors(batches), **found), why_traced=WHY)
            # Some forwards write into what they are given.
            followed = capture(model, copy_tensors(batches), plan=followed_plan, **options | {"given": None})
        except Exception as error:  # noqa: BLE001 - the capture below raises it, too
            followed = error
        record = capture(model, batches, **options)
        if isinstance(followed, Exception):
            raise AssertionError("only the capture that follows every function failed") from followed
        assert_alike(record, followed)
        return record

    return run


def assert_alike(record: ft.CaptureRecord, followed: ft.CaptureRecord) -> None:
    """Check that two records have the same modules, blocks and numbers."""
    for one, other in (
        (record.modules, followed.modules),
        (record.blocks, followed.blocks),
        (record.outputs, followed.outputs),
    ):
        assert [describe(entry) for entry in one] == [describe(entry) for entry in other]
        for entry, expected in zip(one, other, strict=True):
            # While functions are followed, attention of torch does not take its fused way.
            assert numbers(entry) == pytest.approx(numbers(expected), rel=1e-5, abs=1e-7, nan_ok=True)
    assert record.layers.keys() == followed.layers.keys()
    assert record.not_fired == followed.not_fired
    assert record.skipped == followed.skipped
    assert record.errors == followed.errors


def describe(entry: Any) -> tuple[Any, ...]:
    """Return what is to be the same of the record of a module or block."""
    names = ("name", "call", "order", "spectral", "local", "shape", "reasons")
    return tuple(getattr(entry, name, None) for name in names)


def numbers(entry: Any) -> dict[str, float]:
    """Return the numbers of a record, NaN for one that is not known."""
    return {name: math.nan if value is None else value for name, value in entry.stats.items()}
