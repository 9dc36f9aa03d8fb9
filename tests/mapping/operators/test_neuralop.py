"""Real neuraloperator models: what each part is, and the numbers where their branches are added."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft

with warnings.catch_warnings():
    # What it imports warns about its own old syntax, out of our reach.
    warnings.simplefilter("ignore")
    models = pytest.importorskip("neuralop.models", reason="neuraloperator is not installed")
    from neuralop.layers.fno_block import FNOBlocks

SMALL = {"hidden_channels": 8, "n_layers": 2, "in_channels": 1, "out_channels": 1}


@dataclass(frozen=True)
class Case:
    """A model, its input, and what must be found in it."""

    build: Callable[[], nn.Module]
    batch: Callable[[], Any]
    blocks: tuple[str, ...]  # with their call: path@call
    space: tuple[int, ...]
    index: Callable[[int], str] = str  # from the number of a call of a block to that of its parts
    local: str | None = "fno_skips"
    modes: tuple[int, ...] | None = None
    others: tuple[str, ...] = ()  # further spectral modules, in blocks that have no local branch


def fno(dimensions: int = 2, **more: Any) -> Callable[[], nn.Module]:
    return lambda: models.FNO(n_modes=(6,) * dimensions, **SMALL | more)


def tfno(factorization: str, **more: Any) -> Callable[[], nn.Module]:
    arguments = {"factorization": factorization, "rank": 0.5, **more}
    return lambda: models.TFNO(n_modes=(6, 6), **SMALL, **arguments)


def uno() -> nn.Module:
    scales = {"uno_scalings": [[1, 1], [0.5, 0.5], [2, 2]], "uno_n_modes": [[6, 6], [4, 4], [6, 6]]}
    sizes = {"in_channels": 1, "out_channels": 1, "hidden_channels": 8, "uno_out_channels": [8, 12, 8]}
    return models.UNO(**sizes, **scales, n_layers=3, channel_mlp_skip="linear")


def codano() -> nn.Module:
    lists = {"n_modes": [[4, 4]] * 2, "n_heads": [1, 1], "attention_scaling_factors": [1, 1]}
    return models.CODANO(
        **lists,
        n_layers=2,
        lifting_channels=4,
        hidden_variable_codimension=2,
        per_layer_scaling_factors=[[1, 1]] * 2,
        variable_ids=["a", "b"],
    )


GNO = {
    "in_channels": 1,
    "out_channels": 1,
    "fno_n_modes": (4, 4),
    "fno_hidden_channels": 8,
    "fno_n_layers": 2,
}
GNO |= {"gno_coord_dim": 2, "gno_use_open3d": False, "gno_use_torch_scatter": False}


def gino() -> nn.Module:
    return models.GINO(**GNO, in_gno_radius=0.3, out_gno_radius=0.3, projection_channel_ratio=1)


def gino_batch() -> dict[str, torch.Tensor]:
    x, geometry, queries = torch.rand(2, 30, 1), torch.rand(1, 30, 2), torch.rand(1, 20, 2)
    return {"x": x, "input_geom": geometry, "latent_queries": grid()[None], "output_queries": queries}


def grid() -> torch.Tensor:
    axis = torch.linspace(0, 1, 8)
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)


def images(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.rand(*shape)


TWO = ("fno_blocks", "fno_blocks@1")
IMAGES = images(3, 1, 16, 14)
CASES = {
    "FNO 1-D": Case(fno(1), images(3, 1, 20), TWO, (2,), modes=(4,)),
    "FNO 2-D": Case(fno(), IMAGES, TWO, (2, 3), modes=(6, 4)),
    "FNO 2-D, odd": Case(fno(), images(3, 1, 15, 13), TWO, (2, 3), modes=(6, 4)),
    "FNO 3-D": Case(fno(3), images(2, 1, 10, 8, 12), TWO, (2, 3, 4), modes=(6, 6, 4)),
    "FNO complex": Case(
        fno(complex_data=True),
        lambda: torch.randn(2, 1, 12, 12, dtype=torch.complex64),
        *(TWO, (2, 3)),
        modes=(6, 6),
    ),
    "FNO padded": Case(fno(domain_padding=0.25), IMAGES, TWO, (2, 3), modes=(6, 4)),
    "FNO instance norm": Case(fno(norm="instance_norm"), IMAGES, TWO, (2, 3)),
    "FNO group norm": Case(fno(norm="group_norm"), IMAGES, TWO, (2, 3)),
    "FNO soft gating": Case(fno(fno_skip="soft-gating"), IMAGES, TWO, (2, 3)),
    "FNO identity skip": Case(fno(fno_skip="identity"), IMAGES, TWO, (2, 3), local=None),
    "TFNO dense": Case(tfno("dense"), IMAGES, TWO, (2, 3), modes=(6, 4)),
    "TFNO Tucker": Case(tfno("tucker"), IMAGES, TWO, (2, 3), modes=(6, 4)),
    "TFNO Tucker, factorized": Case(tfno("tucker", implementation="factorized"), IMAGES, TWO, (2, 3)),
    "TFNO CP": Case(tfno("cp"), IMAGES, TWO, (2, 3), modes=(6, 4)),
    "UNO": Case(
        uno, images(2, 1, 16, 16), tuple(f"fno_blocks.{i}" for i in range(3)), (2, 3), lambda call: "0"
    ),
    "UQNO": Case(
        lambda: models.UQNO(base_model=fno()()),
        IMAGES,
        tuple(f"{part}.{block}" for part in ("base_model", "residual_model") for block in TWO),
        (2, 3),
    ),
    "GINO": Case(gino, gino_batch, TWO, (2, 3), modes=(4, 3)),
    "FNOGNO": Case(
        lambda: models.FNOGNO(**GNO, gno_radius=0.3),
        lambda: {"in_p": grid(), "out_p": torch.rand(20, 2), "f": torch.rand(8, 8, 1)},
        *(TWO, (2, 3)),
        modes=(4, 3),
    ),
    "CODANO": Case(
        codano,
        images(2, 2, 16, 16),
        tuple(
            f"attention_layers.{layer}.{part}"
            for layer in range(2)
            for part in ("Key", "Query", "Value", "mixer", "mixer@1")
        ),
        (2, 3),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def model(case) -> nn.Module:
    return case.build().eval()


def parts(case: Case, kind: str) -> list[str]:
    """The paths of the parts of this kind, one for each call of a block."""
    named = [block.partition("@") for block in case.blocks]
    return [f"{path}.{kind}.{case.index(int(call or 0))}" for path, _, call in named]


def test_every_part_is_what_it_is(case, model):
    found = ft.map_model(model, case.batch())
    named = {module.name: module for module in found.modules}
    roles = {
        role: {m.name for m in found.modules if m.role == role} for role in ("spectral", "local", "block")
    }
    assert roles["spectral"] == set(parts(case, "convs"))
    assert roles["local"] == (set(parts(case, case.local)) if case.local else set())
    assert roles["block"] == {block.partition("@")[0] for block in case.blocks}
    for name in set().union(*roles.values()):
        assert named[name].spatial_axes == case.space
        assert named[name].channel_axis == 1
    if case.modes is not None:
        assert {named[name].modes for name in roles["spectral"]} == {case.modes}
    assert {m.name for m in found.modules if m.role == "lifting"} >= {
        name for name in named if name.split(".")[-1] == "lifting" and "residual" not in name
    }


def test_every_pair_is_in_the_map_with_its_call(case, model):
    found = ft.map_model(model, case.batch())
    assert [b.name + (f"@{b.call}" if b.call else "") for b in found.blocks] == list(case.blocks)
    assert [block.spectral for block in found.blocks] == [(name,) for name in parts(case, "convs")]


def test_layers_on_flattened_space_have_the_spectrum_of_the_field():
    model, batch = fno()(), IMAGES()
    record = ft.capture(model, batch)
    for name in ("lifting.fcs.0", "fno_blocks.fno_skips.0.conv"):
        module = record.module(name)
        assert module.shape[-1] == 16 * 14
        assert (module.spatial_axes, module.spectrum.sizes) == ((2,), (16, 14))
    line = ft.map_model(fno(1)(), torch.rand(2, 1, 20))
    assert line["lifting.fcs.0"].spatial_axes == (2,)


def test_every_pair_is_recorded_once_for_each_call(case, model):
    record = ft.capture(model, [case.batch()])
    assert [b.name + (f"@{b.call}" if b.call else "") for b in record.blocks] == list(case.blocks)
    assert [block.spectral for block in record.blocks] == [(name,) for name in parts(case, "convs")]
    local = [(name,) for name in parts(case, case.local)] if case.local else [()] * len(case.blocks)
    assert [block.local for block in record.blocks] == local
    recorded = {(m.name, m.call) for m in record.modules}
    for block in record.blocks:
        assert (block.name, block.call) in recorded
        assert (block.spectral[0], 0) in recorded
    assert record.errors == record.warnings == ()
    assert record.not_fired == ()
    # It is called by its own methods, pad() and unpad().
    by_method = {entry["name"] for entry in record.skipped if entry["reason"].startswith("run by its method")}
    assert by_method <= {"domain_padding"}


class Noting:
    """Runs blocks as the library does, and keeps what is added, what went in and what came out."""

    def __init__(self) -> None:
        self.notes: list[dict[str, torch.Tensor]] = []

    def forward(self, block: FNOBlocks, x: torch.Tensor, index: int = 0, output_shape: Any = None):
        conv, started = block.convs[index], x
        skip = None
        if block.fno_skips is not None:
            skip = conv.transform(block.fno_skips[index](x), output_shape=output_shape)
        beside = None
        if block.use_channel_mlp and block.channel_mlp_skips is not None:
            beside = conv.transform(block.channel_mlp_skips[index](x), output_shape=output_shape)
        spectral = conv(x, output_shape=output_shape)
        if block.norm is not None:
            spectral = block.norm[block.n_norms * index](spectral)
        x = spectral if skip is None else spectral + skip
        added = x
        if index < block.n_layers - 1:
            x = block.non_linearity(x)
        if block.use_channel_mlp:
            x = block.channel_mlp[index](x)
            x = x if beside is None else x + beside
        if block.norm is not None:
            x = block.norm[block.n_norms * index + 1](x)
        if index < block.n_layers - 1:
            x = block.non_linearity(x)
        self.notes.append({"s": spectral, "t": skip, "x": started, "added": added, "y": x})
        return x


def test_block_numbers_are_those_of_the_operands_as_they_are_added(case, model, monkeypatch, branch_numbers):
    batch, noting = case.batch(), Noting()
    before = run(model, batch)
    monkeypatch.setattr(FNOBlocks, "forward", lambda *given, **more: noting.forward(*given, **more))
    assert all(torch.equal(a, b) for a, b in zip(run(model, batch), before, strict=True))
    noting.notes.clear()
    record = ft.capture(model, [batch])
    notes = noting.notes[-len(record.blocks) :]
    assert len(notes) == len(case.blocks)
    for block, note in zip(record.blocks, notes, strict=True):
        if getattr(model, "domain_padding", None) is not None:
            note = {name: None if part is None else unpadded(part, batch) for name, part in note.items()}
        if case.local:
            expected = branch_numbers(note["s"], note["t"], note["x"], note["x"])
            # Its own input is nowhere added: the skip is a layer.
            assert block.stats["update_ratio"] is None
            del expected["update_ratio"]
        else:
            # The skip hands on the block's input itself, so this is a residual block.
            expected = {"update_ratio": rms(note["added"] - note["x"]) / rms(note["x"])}
        expected["gain"] = rms(note["y"]) / rms(note["x"])
        found = {name: block.stats[name] for name in expected}
        assert found == pytest.approx(expected, rel=2e-5, abs=1e-6)


def run(model: nn.Module, batch: Any) -> list[torch.Tensor]:
    with torch.no_grad():
        output = model(**batch) if isinstance(batch, dict) else model(batch)
    return list(output) if isinstance(output, tuple) else [output]


def unpadded(field: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """The part of a field that is no padding, which lies on all sides of it alike."""
    starts = [(padded - size) // 2 for padded, size in zip(field.shape[2:], batch.shape[2:], strict=True)]
    assert all(starts)
    return field[..., *(slice(start, start + n) for start, n in zip(starts, batch.shape[2:], strict=True))]


def rms(tensor: torch.Tensor) -> float:
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()
    return float(np.sqrt((abs(wide) ** 2).mean()))
