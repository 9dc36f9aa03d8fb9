"""What the table of an operator is held to: roles, axes, pairs and numbers, with no name told."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.both_ways import capture_both_ways

BRANCHES = ("spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence")
TOLD_BY_CLASS = {"other", "activation", "norm"}
Blocks = Sequence[tuple[str, Sequence[str], Sequence[str]]]


@pytest.fixture(autouse=True)
def _both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every capture of an operator gives the same numbers as planned, and followed function by function."""
    monkeypatch.setattr(ft, "capture", capture_both_ways(ft.capture))


@pytest.fixture
def recognised() -> Callable[..., ft.CaptureRecord]:
    """Check a table against the map and against a capture, and return the capture.

    `roles` are all roles but activation, norm and other; `space` the spatial axes by name; `blocks` the
    name, spectral and local modules of each block in order of calls.
    """

    def check(
        model: nn.Module,
        batches: Any,
        *,
        roles: Mapping[str, str],
        space: Mapping[str, tuple[int, ...]],
        blocks: Blocks,
    ) -> ft.CaptureRecord:
        model_map = ft.map_model(model, batches)
        assert {m.name: m.role for m in model_map.modules if m.role not in TOLD_BY_CLASS} == roles
        assert {name: model_map[name].spatial_axes for name in space} == space
        assert all(module.reason for module in model_map.modules)
        expected = [(name, tuple(spectral), tuple(local)) for name, spectral, local in blocks]
        assert [(b.name, b.spectral, b.local) for b in model_map.blocks] == expected
        record = ft.capture(model, batches)
        assert (record.errors, record.not_fired, record.warnings) == ((), (), ())
        assert {m.name: m.role for m in record.modules if m.role not in TOLD_BY_CLASS} == roles
        assert [(b.name, b.spectral, b.local) for b in record.blocks] == expected
        for module in record.modules:
            if module.item in (None, "0"):
                assert module.spatial_axes == space.get(module.name, module.spatial_axes), module.name
        return record

    return check


@pytest.fixture
def agree() -> Callable[..., None]:
    """Check each block against NumPy in float64, on operands that the network's own forward noted.

    Noted are the operands `s` and `t` of the sum, `x` and the `y` that a residual sum made of it, and what
    `entered` and `left` the module that is the block, all with space in `space`. The rest must be None. For a
    block without a module of its own, `x` is the input of its branches and `y` the sum.
    """

    def double(tensor: torch.Tensor) -> np.ndarray:
        return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()

    def rms(field: np.ndarray) -> float:
        return float(np.sqrt((abs(field) ** 2).mean()))

    def reference(
        noted: Mapping[str, torch.Tensor], space: tuple[int, ...], functional: bool
    ) -> dict[str, float | None]:
        known = {name: double(tensor) for name, tensor in noted.items()}
        numbers: dict[str, float | None] = dict.fromkeys((*BRANCHES, "update_ratio", "gain"))
        if "s" in known:
            s, t = (known[name] - known[name].mean(space, keepdims=True) for name in ("s", "t"))
            numbers["spectral_local_ratio"] = rms(s) / rms(t)
            numbers["spectral_share"] = rms(s) ** 2 / (rms(s) ** 2 + rms(t) ** 2)
            numbers["branch_cosine"] = float((s.conj() * t).mean().real) / (rms(s) * rms(t))
            numbers["branch_coherence"] = rms(s + t) / (rms(s) + rms(t))
        if "x" in known:
            numbers["update_ratio"] = rms(known["y"] - known["x"]) / rms(known["x"])
        if "entered" in known or functional:
            after, before = ("left", "entered") if "entered" in known else ("y", "x")
            numbers["gain"] = rms(known[after]) / rms(known[before])
        return numbers

    def check(
        blocks: Sequence[ft.BlockRecord],
        noted: Sequence[Mapping[str, torch.Tensor]],
        space: tuple[int, ...] = (2, 3),
    ) -> None:
        assert len(blocks) == len(noted) > 0
        for block, operands in zip(blocks, noted, strict=True):
            expected = reference(operands, space, "#" in block.name)
            undefined = {key for key, value in expected.items() if value is None}
            assert {key for key, value in block.stats.items() if value is None} == undefined, block.name
            assert set(block.reasons) == undefined
            found = {key: value for key, value in block.stats.items() if value is not None}
            defined = {key: value for key, value in expected.items() if value is not None}
            assert found == pytest.approx(defined, rel=1e-5, abs=1e-6), block.name

    return check
