"""Train the network `fno` a few dozen steps, let the learning rate spike, and keep checkpoints on the way.

    python examples/train_until_collapse.py diffraction.npz checkpoints

The network learns to split diffraction amplitudes into what is smooth and what is not. After the spike it has
collapsed: the loss no longer falls. The training is watched, so a line says so while it still runs, and
`checkpoints/history.jsonl` has its records. `fno-telemetry compare` names the first checkpoint after it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry import plugins

CHECKPOINT_EVERY = 10
WATCHED_EVERY = 5
SPIKE = 35  # falls between the checkpoints of steps 30 and 40
LAST = 60
HEALTHY_RATE, SPIKED_RATE = 2e-3, 3.0


def train(amplitudes: torch.Tensor, folder: Path, seed: int = 0) -> dict[int, float]:
    """Train on (B, 1, H, W) amplitudes, write `step=N.ckpt` files to `folder`; return the loss at each."""
    torch.manual_seed(seed)
    settings = {"hidden_channels": 16, "modes": 8, "C": 1, "fno_blocks": 3, "cnn_blocks": 1}
    network = plugins.load("architectures", "fno").build(**settings)
    smooth = nn.functional.avg_pool2d(amplitudes, 5, stride=1, padding=2)
    target = torch.stack([smooth, amplitudes - smooth], -1).squeeze(1).unsqueeze(3)
    optimizer = torch.optim.Adam(network.parameters(), HEALTHY_RATE)
    losses = {}
    history = ft.HistoryFile(folder / "history.jsonl")
    with ft.watch(network, [history], every=WATCHED_EVERY, optimizer=optimizer, diagnose=True) as watch:
        for step in range(LAST + 1):
            output = network(amplitudes)
            loss = nn.functional.mse_loss(output, target)
            if step % CHECKPOINT_EVERY == 0:
                losses[step] = loss.item()
                torch.save(
                    {"state_dict": network.state_dict(), "global_step": step}, folder / f"step={step}.ckpt"
                )
            for group in optimizer.param_groups:
                group["lr"] = SPIKED_RATE if step == SPIKE else HEALTHY_RATE
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(step, loss=loss, output=output, target=target)
    return losses


def main() -> None:
    """Read the amplitudes, train, and say how the loss went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", type=Path, help="NPZ with diffraction (n, H, W)")
    parser.add_argument("output", type=Path, help="folder for the checkpoints")
    given = parser.parse_args()
    with np.load(given.input, allow_pickle=False) as arrays:
        amplitudes = torch.from_numpy(arrays["diffraction"][:16].astype(np.float32)).unsqueeze(1)
    given.output.mkdir(parents=True, exist_ok=True)
    for step, loss in train(amplitudes, given.output).items():
        print(f"step {step}: loss {loss:.3g}")


if __name__ == "__main__":
    main()
