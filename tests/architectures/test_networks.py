"""The built-in networks against their published parameters and a slow NumPy forward."""

import importlib
import math

import numpy as np
import pytest
import torch

from fno_telemetry.errors import ModelError

SPECS = {
    "fno": "fno_telemetry.architectures.fno:FNO",
    "hybrid": "fno_telemetry.architectures.hybrid:HYBRID",
    "stable_hybrid": "fno_telemetry.architectures.stable_hybrid:STABLE_HYBRID",
    "fno_vanilla": "fno_telemetry.architectures.fno_vanilla:FNO_VANILLA",
}


def architecture(name):
    module, _, attribute = SPECS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


# ---- the shapes, written by hand for 3 input channels (C = 3), width 4, 5 modes -------------------------


def conv(name, out, into, kernel):
    return {f"{name}.weight": (out, into, kernel, kernel), f"{name}.bias": (out,)}


def block(name, width, modes, stable=False):
    shapes = {f"{name}.spectral.weights": (width, width, modes, modes)}
    shapes |= conv(f"{name}.local_conv", width, width, 3)
    if stable:
        shapes |= {
            f"{name}.norm.weight": (width,),
            f"{name}.norm.bias": (width,),
            f"{name}.layerscale": (width,),
        }
    return shapes


LIFTER = conv("lifter.conv1", 4, 3, 3) | conv("lifter.conv2", 4, 4, 3)
OUTPUTS = {
    "real_imag": conv("output_proj", 6, 4, 1),
    "amp_phase": conv("output_amp", 3, 4, 1) | conv("output_phase", 3, 4, 1),
}


def hybrid_body(stable):
    return (
        block("encoder_blocks.0", 4, 5, stable)
        | block("encoder_blocks.1", 8, 5, stable)
        | block("encoder_blocks.2", 16, 5, stable)
        | conv("downsample.0", 8, 4, 2)
        | conv("downsample.1", 16, 8, 2)
        | block("bottleneck", 16, 2, stable)
        | {"upsample.0.weight": (16, 8, 2, 2), "upsample.0.bias": (8,)}
        | {"upsample.1.weight": (8, 4, 2, 2), "upsample.1.bias": (4,)}
        | conv("decoder_blocks.0.0", 8, 16, 3)
        | conv("decoder_blocks.0.2", 8, 8, 3)
        | conv("decoder_blocks.1.0", 4, 8, 3)
        | conv("decoder_blocks.1.2", 4, 4, 3)
    )


BODIES = {
    "fno": block("fno_blocks.0", 4, 5)
    | block("fno_blocks.1", 4, 5)
    | block("fno_blocks.2", 4, 5)
    | conv("intermediate", 4, 4, 1)
    | conv("cnn_refiner.0.0", 4, 4, 3)
    | conv("cnn_refiner.1.0", 4, 4, 3),
    "hybrid": hybrid_body(stable=False),
    "stable_hybrid": hybrid_body(stable=True),
    "fno_vanilla": block("blocks.0", 4, 5) | block("blocks.1", 4, 5),
}
DEPTHS = {
    "fno": {"fno_blocks": 3, "cnn_blocks": 2},
    "hybrid": {"n_blocks": 3},
    "stable_hybrid": {"n_blocks": 3},
    "fno_vanilla": {"n_blocks": 2},
}


def table(name, output_mode="real_imag"):
    return LIFTER | BODIES[name] | OUTPUTS[output_mode]


def small(name, **more):
    return architecture(name).build(hidden_channels=4, modes=5, C=3, **DEPTHS[name], **more)


def weights(shapes, seed=0):
    """Random weights that single precision holds exactly, so that both sides see the same numbers."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, shape in shapes.items():
        values[name] = rng.uniform(-0.25, 0.25, shape).astype(np.float32)
        if name.endswith("spectral.weights"):
            values[name] = values[name] + 1j * rng.uniform(-0.25, 0.25, shape).astype(np.float32)
    return values


def run(network, w, x):
    network.load_state_dict({name: torch.from_numpy(value) for name, value in w.items()})
    with torch.no_grad():
        return network(torch.from_numpy(x).float()), network.double()(torch.from_numpy(x))


# ---- the slow forward, float64 --------------------------------------------------------------------------

erf = np.vectorize(math.erf)


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def conv2d(x, w, name):
    """Same-size convolution with an odd kernel."""
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    half = kernel.shape[-1] // 2
    height, width = x.shape[-2:]
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    out = np.zeros((x.shape[0], kernel.shape[0], height, width))
    for i in range(kernel.shape[-1]):
        for j in range(kernel.shape[-1]):
            out += np.einsum("bchw,oc->bohw", padded[:, :, i : i + height, j : j + width], kernel[:, :, i, j])
    return out + bias[:, None, None]


def halve(x, w, name):
    out = sum(
        np.einsum("bchw,oc->bohw", x[:, :, i::2, j::2], w[f"{name}.weight"][:, :, i, j])
        for i in (0, 1)
        for j in (0, 1)
    )
    return out + w[f"{name}.bias"][:, None, None]


def double(x, w, name):
    kernel = w[f"{name}.weight"]
    out = np.zeros((x.shape[0], kernel.shape[1], 2 * x.shape[2], 2 * x.shape[3]))
    for i in (0, 1):
        for j in (0, 1):
            out[:, :, i::2, j::2] = np.einsum("bchw,co->bohw", x, kernel[:, :, i, j])
    return out + w[f"{name}.bias"][:, None, None]


def spectral(x, matrices):
    batch, channels, height, width = x.shape
    before = np.fft.fft(np.fft.rfft(x, axis=-1), axis=-2)
    after = np.zeros((batch, matrices.shape[1], height, width // 2 + 1), complex)
    for row in range(min(matrices.shape[2], height)):
        for column in range(min(matrices.shape[3], width // 2 + 1)):
            for into in range(matrices.shape[1]):
                for out_of in range(channels):
                    after[:, into, row, column] += (
                        before[:, out_of, row, column] * matrices[out_of, into, row, column]
                    )
    return np.fft.irfft(np.fft.ifft(after, axis=-2), n=width, axis=-1)


def instance_norm(x, eps):
    mean, variance = x.mean((-2, -1), keepdims=True), x.var((-2, -1), keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def run_block(x, w, name):
    update = gelu(spectral(x, w[f"{name}.spectral.weights"]) + conv2d(x, w, f"{name}.local_conv"))
    if f"{name}.layerscale" in w:
        scale, shift = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
        update = instance_norm(update, 1e-5) * scale[:, None, None] + shift[:, None, None]
        update = update * w[f"{name}.layerscale"][:, None, None]
    return x + update


TRANSFORMS = {
    "none": lambda x: x,
    "sqrt": lambda x: np.sqrt(np.maximum(x, 0)),
    "log1p": lambda x: np.log1p(np.maximum(x, 0)),
    "instancenorm": lambda x: instance_norm(x, 1e-6),
}


def run_hybrid(x, w):
    skips = []
    for level in (0, 1):
        x = run_block(x, w, f"encoder_blocks.{level}")
        skips.append(x)
        x = halve(x, w, f"downsample.{level}")
    x = run_block(run_block(x, w, "encoder_blocks.2"), w, "bottleneck")
    for level in (0, 1):
        x = np.concatenate([double(x, w, f"upsample.{level}"), skips.pop()], axis=1)
        x = conv2d(gelu(conv2d(x, w, f"decoder_blocks.{level}.0")), w, f"decoder_blocks.{level}.2")
    return x


def reference(name, x, w, transform="none"):
    x = TRANSFORMS[transform](x)
    x = conv2d(gelu(conv2d(x, w, "lifter.conv1")), w, "lifter.conv2")
    if name == "fno":
        for k in (0, 1, 2):
            x = run_block(x, w, f"fno_blocks.{k}")
        x = conv2d(x, w, "intermediate")
        for k in (0, 1):
            x = gelu(conv2d(x, w, f"cnn_refiner.{k}.0"))
    elif name == "fno_vanilla":
        for k in (0, 1):
            x = run_block(x, w, f"blocks.{k}")
    else:
        x = run_hybrid(x, w)
    if "output_amp.weight" in w:
        amplitude = 1 / (1 + np.exp(-conv2d(x, w, "output_amp")))
        return amplitude, np.pi * np.tanh(conv2d(x, w, "output_phase"))
    parts = conv2d(x, w, "output_proj")
    real, imaginary = parts[:, :3], parts[:, 3:]
    return np.stack([real, imaginary], axis=-1).transpose(0, 2, 3, 1, 4)


# ---- promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [("fno", 656_002), ("hybrid", 17_202_402), ("stable_hybrid", 17_204_610), ("fno_vanilla", 636_450)],
)
def test_default_networks_have_the_published_number_of_parameters(name, count):
    with torch.device("meta"):
        network = architecture(name).build(C=1)
    assert count == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("output_mode", ["real_imag", "amp_phase"])
@pytest.mark.parametrize("name", SPECS)
def test_state_dict_has_exactly_the_published_names_and_shapes(name, output_mode):
    state = small(name, output_mode=output_mode).state_dict()
    assert table(name, output_mode) == {key: tuple(value.shape) for key, value in state.items()}
    assert {torch.complex64} == {value.dtype for key, value in state.items() if "spectral" in key}


def test_children_stand_in_the_order_of_the_published_networks():
    children = {name: [child for child, _ in small(name).named_children()] for name in SPECS}
    u_shape = "lifter encoder_blocks downsample bottleneck upsample decoder_blocks output_proj"
    assert {
        "fno": ["lifter", "fno_blocks", "intermediate", "cnn_refiner", "output_proj"],
        "hybrid": u_shape.split(),
        "stable_hybrid": u_shape.split(),
        "fno_vanilla": ["lifter", "blocks", "output_proj"],
    } == children
    block = small("stable_hybrid").encoder_blocks[0]
    assert [name for name, _ in block.named_children()] == ["spectral", "local_conv", "act", "norm"]
    lifter = small("fno").lifter
    assert [name for name, _ in lifter.named_children()] == ["input_transform", "conv1", "act", "conv2"]


CASES = [
    ("fno", (2, 3, 16, 12)),
    ("fno", (1, 3, 7, 9)),  # odd, and fewer columns in the half spectrum than modes in one axis
    ("fno", (1, 3, 4, 5)),  # fewer rows and columns than modes
    ("fno_vanilla", (2, 3, 11, 8)),
    ("fno_vanilla", (1, 3, 1, 2)),
    ("hybrid", (2, 3, 12, 20)),
    ("hybrid", (1, 3, 4, 4)),
    ("stable_hybrid", (2, 3, 12, 20)),
    ("stable_hybrid", (1, 3, 8, 12)),
]


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_forward_agrees_with_a_slow_float64_forward(name, shape):
    w = weights(table(name))
    x = np.random.default_rng(1).uniform(0, 2, shape)
    expected = reference(name, x, w)
    single, double = run(small(name), w, x)
    assert tuple(single.shape) == (shape[0], *shape[2:], 3, 2)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(double, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", SPECS)
def test_amp_phase_returns_amplitude_and_phase_in_their_ranges(name):
    w = weights(table(name, "amp_phase"))
    x = np.random.default_rng(1).uniform(0, 2, (2, 3, 8, 12))
    expected_amplitude, expected_phase = reference(name, x, w)
    amplitude, phase = run(small(name, output_mode="amp_phase"), w, x)[0]
    np.testing.assert_allclose(amplitude, expected_amplitude, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(phase, expected_phase, rtol=1e-5, atol=1e-5)
    assert amplitude.min() >= 0 and amplitude.max() <= 1 and phase.abs().max() <= math.pi


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", SPECS)
def test_input_transform_is_applied_before_lifting(name, transform):
    w = weights(table(name))
    # Negative values are clamped.
    x = np.random.default_rng(2).uniform(-1, 3, (1, 3, 8, 8))
    expected = reference(name, x, w, transform)
    single, double = run(small(name, input_transform=transform), w, x)
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(double, expected, rtol=1e-10, atol=1e-10)


def test_negative_row_frequencies_do_not_pass():
    network = small("fno_vanilla")
    rows = torch.arange(16.0)
    wave = torch.exp(2j * torch.pi * rows / 16)[:, None] * torch.exp(-2j * torch.pi * torch.arange(16.0) / 16)
    # A real wave travelling along (-1, +1): its half spectrum holds only row -1, column 1.
    out = network.blocks[0].spectral(wave.real.expand(1, 4, 16, 16))
    assert out.abs().max() < 1e-6


def test_blocks_keep_half_precision_inputs_in_their_dtype():
    layer = small("fno_vanilla").blocks[0].spectral
    x = torch.rand(1, 4, 6, 6)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert dtype == layer(x.to(dtype)).dtype


@pytest.mark.parametrize("name", ["hybrid", "stable_hybrid"])
def test_sizes_that_cannot_be_halved_are_refused_with_the_divisor(name):
    with pytest.raises(ModelError, match=r"divisible by 4; the input has 12x10 pixels\..*n_blocks") as caught:
        small(name)(torch.zeros(1, 3, 12, 10))
    assert "\n" not in str(caught.value)


def test_stable_blocks_start_near_the_identity():
    block = small("stable_hybrid").encoder_blocks[0]
    assert torch.equal(torch.full((4,), 1e-3), block.layerscale.detach())
    assert (
        block.norm.eps,
        small("fno", input_transform="instancenorm").lifter.input_transform.eps,
    ) == (1e-5, 1e-6)


def test_initial_spectral_weights_have_the_scale_of_their_inputs():
    torch.manual_seed(0)
    layer = architecture("fno").build(C=1).fno_blocks[0].spectral
    assert pytest.approx(float(layer.weights.detach().abs().square().mean().sqrt()), rel=0.02) == 32**-0.5
