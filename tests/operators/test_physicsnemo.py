"""Real physicsnemo models, where it is installed: paired lists, and channels-last patches."""

import pytest
import torch

REASON = "physicsnemo is not installed: pip install nvidia-physicsnemo, which needs torch with CUDA"
fno = pytest.importorskip("physicsnemo.models.fno", reason=REASON, exc_type=ImportError)
afno = pytest.importorskip("physicsnemo.models.afno", reason=REASON, exc_type=ImportError)


@pytest.mark.parametrize("padding", [0, 3])
def test_its_fno_has_a_pair_for_each_entry_of_its_lists(padding, recognised):
    model = fno.FNO(
        in_channels=1,
        out_channels=1,
        latent_channels=8,
        num_fno_layers=3,
        num_fno_modes=4,
        padding=padding,
        decoder_layer_size=8,
    )
    spectral, local = ([f"spec_encoder.{kind}_layers.{k}" for k in range(3)] for kind in ("spconv", "conv"))
    record = recognised(
        model,
        torch.rand(2, 1, 16, 20),
        roles={"spec_encoder.lift_network": "lifting", "decoder_net": "projection"}
        | dict.fromkeys(spectral, "spectral")
        | dict.fromkeys(local, "local"),
        space=dict.fromkeys([*spectral, *local], (2, 3)),
        blocks=[(f"spec_encoder#{k}", [spectral[k]], [local[k]]) for k in range(3)],
    )
    assert all(record.module(name).stats["count"] == 2 * 8 * 16 * 20 for name in spectral)


def test_its_afno_filters_over_axes_1_and_2(recognised):
    model = afno.AFNO(
        inp_shape=[16, 24],
        in_channels=2,
        out_channels=1,
        patch_size=[2, 2],
        embed_dim=12,
        depth=2,
        num_blocks=4,
    )
    blocks = [f"blocks.{k}" for k in range(2)]
    record = recognised(
        model,
        torch.rand(2, 2, 16, 24),
        roles={"patch_embed": "lifting", "head": "projection"}
        | dict.fromkeys(blocks, "block")
        | {f"{block}.filter": "spectral" for block in blocks},
        space={f"{block}{part}": (1, 2) for block in blocks for part in ("", ".filter", ".mlp")}
        | {"patch_embed": (1,), "head": (1, 2)},
        blocks=[(block, [f"{block}.filter"], []) for block in blocks],
    )
    assert record.module("patch_embed").spectrum.sizes == (8, 12)
