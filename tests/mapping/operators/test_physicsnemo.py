"""Real physicsnemo models, where it is installed: paired lists, and channels-last patches."""

import warnings

import pytest
import torch

try:
    with warnings.catch_warnings():
        # What it imports warns about itself, out of our reach.
        warnings.simplefilter("ignore")
        from physicsnemo.models.afno import AFNO
        from physicsnemo.models.fno import FNO
except (ImportError, RuntimeError) as error:
    # Beside a torch without CUDA its torchvision raises a RuntimeError.
    pytest.skip(f"physicsnemo cannot be imported (nvidia-physicsnemo): {error}", allow_module_level=True)


@pytest.mark.parametrize("padding", [0, 3])
def test_its_fno_has_a_pair_for_each_entry_of_its_lists(padding, recognised):
    model = FNO(
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
    model = AFNO(
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
