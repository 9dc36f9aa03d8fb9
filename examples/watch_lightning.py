"""Train a small FNO on Darcy flow with Lightning, and watch it by a callback.

    python examples/watch_lightning.py OUTPUT

The records go where the trainer logs: OUTPUT/lightning_logs is a TensorBoard run.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader

import fno_telemetry as ft
from darcy_flow import FNO, make_dataset


class Darcy(LightningModule):
    """Learns the pressure; its network is the only child with parameters, so it is what is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FNO()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """Return the loss, and what the watch compares."""
        x, y = batch
        prediction = self.net(x)
        loss = nn.functional.mse_loss(prediction, y)
        self.log("train_loss", loss)
        return {"loss": loss, "output": prediction, "target": y}

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the loss of a batch that is not learnt."""
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self.net(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def train(output: Path, epochs: int) -> None:
    """Train, and write into `output`."""
    seed_everything(0)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(output),
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        callbacks=[ft.integrations.lightning.Watch(every=20)],
    )
    train_loader = DataLoader(make_dataset(), batch_size=8, shuffle=True)
    trainer.fit(Darcy(), train_loader, DataLoader(make_dataset(16, seed=1), batch_size=8))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    train(given.output, given.epochs)


if __name__ == "__main__":
    main()
