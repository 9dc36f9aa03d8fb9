"""Train a small FNO on Darcy flow with accelerate, in steps of two batches, and watch it.

    python examples/watch_accelerate.py OUTPUT

The records go to the tracker of the accelerator: OUTPUT/darcy is a TensorBoard run.
"""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

import fno_telemetry as ft
from darcy_flow import FNO, make_dataset


def train(output: Path, epochs: int) -> None:
    """Train, and write into `output`."""
    torch.manual_seed(0)
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=2, log_with="tensorboard", project_dir=output
    )
    accelerator.init_trackers("darcy")
    model = FNO()
    model, optimizer, loader = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=3e-3),
        DataLoader(make_dataset(), batch_size=8, shuffle=True),
    )
    with ft.integrations.accelerate.watch(accelerator, model, optimizer=optimizer, every=10) as watch:
        for epoch in range(epochs):
            for x, y in loader:
                with accelerator.accumulate(model):
                    prediction = model(x)
                    loss = nn.functional.mse_loss(prediction, y)
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                watch.step(loss=loss, output=prediction, target=y)
            accelerator.print(f"epoch {epoch}: loss {loss.item():.3g}")
    accelerator.end_training()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    train(given.output, given.epochs)


if __name__ == "__main__":
    main()
