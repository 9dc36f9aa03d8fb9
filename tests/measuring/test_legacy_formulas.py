"""The flat `layers`: the formulas of the earlier script, on captured modules, one value per batch."""

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft


def reference(x, rectifying):
    """The earlier script's numbers of one batch, as plain as they were."""
    x = x.detach().double().numpy()
    magnitude = abs(x)
    found = {"mean": magnitude.mean(), "std": magnitude.std(ddof=1)}
    found |= {f"p{p}": np.percentile(magnitude, p) for p in (50, 95, 99)}
    if rectifying:
        found["sparsity"] = (x <= 0).mean()
    if x.ndim == 4:
        power = abs(np.fft.rfft2(x, norm="ortho")) ** 2
        rows, columns = power.shape[-2:]
        low = power[..., : max(1, rows // 8), : max(1, columns // 8)]
        found["low_freq_ratio"] = low.mean() / power.mean()
    return found


@pytest.fixture
def noted():
    """Keep what every module returned, batch by batch; the observed forward is left out."""

    def attach(model):
        outputs = {}
        for name, module in model.named_modules():
            outputs[name] = []
            module.register_forward_hook(lambda m, a, y, name=name: outputs[name].append(y))
        return outputs

    return attach


@pytest.mark.parametrize("name", ["fno", "hybrid", "stable_hybrid", "fno_vanilla"])
def test_every_value_is_that_of_the_earlier_formulas(name, small_network, images, noted):
    # Sixteen rows and more make the corner larger than a single mode.
    images = torch.nn.functional.interpolate(images, size=(20, 34), mode="bilinear")
    model = small_network(name)
    outputs = noted(model)
    record = ft.capture(model, [images[:5], images[5:]])
    expected = {}
    for module in record.modules:
        rectifying = isinstance(model.get_submodule(module.name), nn.ReLU | nn.GELU)
        rows = [reference(y, rectifying) for y in outputs[module.name][-2:]]
        expected |= {f"{module.name}/{key}": [row[key] for row in rows] for key in rows[0]}
    for block in record.blocks:
        spectral, local = outputs[block.spectral[0]][-2:], outputs[block.local[0]][-2:]
        expected[f"{block.name}/spectral_local_ratio"] = [
            float(s.detach().double().abs().mean() / t.detach().double().abs().mean())
            for s, t in zip(spectral, local, strict=True)
        ]
    assert expected.keys() == record.layers.keys()
    for key, values in expected.items():
        rel = 1e-2 if key.rpartition("/p")[1] else 1e-3
        assert record.layers[key] == pytest.approx(values, rel=rel), key


def test_a_constant_field_reads_66_and_a_mirrored_wave_nothing():
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    model = nn.Sequential(nn.Identity())

    def ratio(field):
        return ft.capture(model, field[None, None]).layers["0/low_freq_ratio"]

    wave = 2 * torch.pi / 64
    assert ratio(torch.full((64, 64), 3.0)) == pytest.approx([66.0])
    assert ratio(torch.cos(wave * (rows + columns))) == pytest.approx([66.0], rel=1e-4)
    assert ratio(torch.cos(wave * (columns - rows))) == pytest.approx([0.0], abs=1e-6)


def test_sparsity_is_told_of_relu_and_gelu_modules_only():
    model = nn.Sequential(nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Identity())
    x = torch.tensor([[-1.0, 0.0, 2.0, -0.0]])
    layers = ft.capture(model, x).layers
    assert {key: values for key, values in layers.items() if "sparsity" in key} == {
        "0/sparsity": (0.75,),
        "1/sparsity": (0.75,),
    }


def test_what_would_be_nan_is_none_in_its_place():
    class Spoils(nn.Module):
        def forward(self, x):
            return torch.where(x > 5, torch.nan, x)

    images = torch.rand(3, 2, 8, 8)
    images[1] = 9.0
    layers = ft.capture(nn.Sequential(Spoils()), list(images.split(1))).layers
    assert {len(values) for values in layers.values()} == {3}
    assert all(values[1] is None and None not in (values[0], values[2]) for values in layers.values())
    # A single value has no standard deviation with n - 1, and all-zero fields no ratio.
    single = ft.capture(nn.Sequential(nn.Identity()), torch.ones(1, 1)).layers
    assert (single["0/mean"], single["0/std"]) == ((1.0,), (None,))
    zero = ft.capture(nn.Sequential(nn.Identity()), torch.zeros(2, 1, 8, 8)).layers
    assert (zero["0/mean"], zero["0/low_freq_ratio"]) == ((0.0,), (None,))


def test_a_branch_ratio_that_would_be_nan_or_infinite_is_none(small_network, images):
    images[1] = float("nan")
    network = small_network("fno_vanilla")
    layers = ft.capture(network, list(images.split(1))).layers
    values = layers["blocks.0/spectral_local_ratio"]
    assert values[1] is None
    assert all(value > 0 for k, value in enumerate(values) if k != 1)
    # A single element is enough.
    handle = network.blocks[1].spectral.register_forward_hook(
        lambda m, a, y: y.flatten().index_fill(0, torch.tensor(3), torch.inf).view_as(y)
    )
    assert ft.capture(network, images[:1]).layers["blocks.1/spectral_local_ratio"] == (None,)
    handle.remove()
    for parameter in network.blocks[0].local_conv.parameters():
        parameter.data.zero_()
    layers = ft.capture(network, images[:1]).layers
    assert layers["blocks.0/spectral_local_ratio"] == (None,)


def test_repeated_calls_and_items_have_keys_of_their_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()
            self.pair = nn.Identity()

        def forward(self, x):
            self.layer(x)
            self.layer(x * 2)
            self.pair((x, x))
            return x

    layers = ft.capture(Twice(), torch.ones(2, 3)).layers
    means = {key: values for key, values in layers.items() if key.endswith("/mean")}
    assert means == {
        "layer/mean": (1.0,),
        "layer@1/mean": (2.0,),
        "pair[0]/mean": (1.0,),
        "pair[1]/mean": (1.0,),
    }


def test_a_partner_of_another_forward_does_not_enter_the_ratio(small_network, images):
    network = small_network("fno_vanilla")
    alone = [ft.capture(network, batch[None]).layers["blocks.0/spectral_local_ratio"][0] for batch in images]
    together = ft.capture(network, list((images).split(1))).layers["blocks.0/spectral_local_ratio"]
    assert together == pytest.approx(alone, rel=1e-6)
