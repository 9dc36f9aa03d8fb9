"""Small networks of every family, healthy: as made, and trained until they do something.

The task: split a field into what is smooth and what is not, which needs the spectral and the local branch.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from fno_telemetry import plugins
from simulate_diffraction import simulate

SIZE = 32
TRAINING_SAMPLES, HELD_OUT = 16, 8
STEPS, RATE = 60, 3e-3


def built_in(name: str, **settings: object) -> nn.Module:
    """Return one of our networks for one channel."""
    return plugins.load("architectures", name).build(C=1, modes=8, **settings)


def neuralop(name: str, **settings: object) -> nn.Module:
    """Return one of neuraloperator's networks for one channel in and two out."""
    from neuralop import models

    return getattr(models, name)(in_channels=1, out_channels=2, **settings)


def uno(width: int) -> nn.Module:
    """Return a U-shaped operator."""
    return neuralop(
        "UNO",
        hidden_channels=width,
        n_layers=4,
        uno_out_channels=[width, 2 * width, 2 * width, width],
        uno_n_modes=[[8, 8], [8, 8], [6, 6], [8, 8]],
        uno_scalings=[[1, 1], [0.5, 0.5], [1, 1], [2, 2]],
        channel_mlp_skip="linear",
    )


FAMILIES: Mapping[str, Callable[[int], nn.Module]] = {
    "fno": lambda width: built_in("fno", hidden_channels=width, fno_blocks=4, cnn_blocks=2),
    "hybrid": lambda width: built_in("hybrid", hidden_channels=width, n_blocks=3),
    "stable_hybrid": lambda width: built_in("stable_hybrid", hidden_channels=width, n_blocks=3),
    "FNO": lambda width: neuralop("FNO", n_modes=(16, 16), hidden_channels=width, n_layers=4),
    "TFNO": lambda width: neuralop(
        "TFNO", n_modes=(16, 16), hidden_channels=width, n_layers=4, factorization="tucker", rank=0.5
    ),
    "UNO": uno,
}


def make(family: str, seed: int, width: int = 16) -> nn.Module:
    """Return a network as its library makes it."""
    torch.manual_seed(seed)
    return FAMILIES[family](width).eval()


def fields(kind: str, samples: int, seed: int, size: int = SIZE) -> torch.Tensor:
    """Return (samples, 1, size, size): "waves", "rough" fields, "shapes" or "diffraction" amplitudes."""
    if kind == "diffraction":
        return torch.from_numpy(simulate(samples, size, seed)).unsqueeze(1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, 1, size, size, generator=generator)
    frequency = torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None, :] ** 2
    slope = {"waves": 1.0, "rough": 0.6, "shapes": 1.5}[kind]
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) / (frequency + 1e-3) ** slope, s=(size, size))
    smooth = smooth / smooth.std()
    # Two materials, as in flow through porous media.
    return torch.where(smooth > 0, 12.0, 3.0) if kind == "shapes" else smooth


def target(x: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, H, W): a smoothed field, and the square root of what is left."""
    smooth = nn.functional.avg_pool2d(x, 5, stride=1, padding=2)
    rest = x - smooth
    return torch.cat((smooth, rest.sign() * rest.abs().sqrt()), 1)


def as_image(output: torch.Tensor) -> torch.Tensor:
    """Return (B, 2, H, W) from what any of the networks returns."""
    return output if output.ndim == 4 else output[:, :, :, 0].permute(0, 3, 1, 2)


def loss_of(output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error, relative to the target's mean square."""
    wanted = target(x)
    return nn.functional.mse_loss(as_image(output), wanted) / wanted.square().mean()


def trained(family: str, seed: int, width: int = 16, kind: str = "waves", steps: int = STEPS) -> nn.Module:
    """Return a network after some steps of Adam."""
    *_, (_, network) = training(family, seed, width, kind, steps)
    return network.eval()


def training(
    family: str,
    seed: int,
    width: int = 16,
    kind: str = "waves",
    steps: int = STEPS,
    spike: tuple[int, float] | None = None,
) -> Iterator[tuple[int, nn.Module]]:
    """Yield the number of steps made so far and the network, from 0 on; whoever gets it may not change it.

    `spike` is a step and the rate of Adam at that step alone.
    """
    network = make(family, seed, width).train()
    x = fields(kind, TRAINING_SAMPLES, 1000 + seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for step in range(steps):
        yield step, network
        network.train()
        batch = x[8 * (step % 2) : 8 * (step % 2) + 8]
        for group in optimizer.param_groups:
            group["lr"] = spike[1] if spike is not None and step == spike[0] else RATE
        optimizer.zero_grad()
        loss_of(network(batch), batch).backward()
        optimizer.step()
    yield steps, network


def held_out(seed: int, kind: str = "waves") -> torch.Tensor:
    """Return samples that no network was trained on."""
    return fields(kind, HELD_OUT, 5000 + seed)
