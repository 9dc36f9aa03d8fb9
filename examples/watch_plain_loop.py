"""Train a small FNO on Darcy flow in a plain loop, and watch it.

    python examples/watch_plain_loop.py OUTPUT

OUTPUT then holds a report of each due step and a TensorBoard run with the loss next to what happens inside.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

import fno_telemetry as ft
from darcy_flow import FNO, make_dataset


def train(output: Path, epochs: int) -> None:
    """Train, and write into `output`."""
    torch.manual_seed(0)
    model, loader = FNO(), DataLoader(make_dataset(), batch_size=8, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    writer = SummaryWriter(output / "tensorboard")
    sinks = [ft.JsonFile(), ft.TensorBoard(writer)]
    step = 0
    with ft.watch(model, sinks, every=20, optimizer=optimizer, folder=output) as watch:
        for epoch in range(epochs):
            for x, y in loader:
                prediction = model(x)
                loss = nn.functional.mse_loss(prediction, y)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                writer.add_scalar("train_loss", loss.item(), step)
                watch.step(step, loss=loss, output=prediction, target=y)
                step += 1
            print(f"epoch {epoch}: loss {loss.item():.3g}")
    writer.close()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    train(given.output, given.epochs)


if __name__ == "__main__":
    main()
