"""Train neuraloperator's FNO on Darcy flow with its Trainer, and watch it.

    python examples/watch_neuralop.py OUTPUT

OUTPUT then holds a report of each due step and a TensorBoard run.
"""

import argparse
from pathlib import Path

import torch
from neuralop.losses import LpLoss
from neuralop.models import FNO
from neuralop.training import AdamW, Trainer
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

import fno_telemetry as ft
from darcy_flow import make_dataset


class Named(Dataset[dict[str, torch.Tensor]]):
    """Samples as the Trainer takes them, {"x": permeability, "y": pressure}."""

    def __init__(self, samples: int, seed: int) -> None:
        self.pairs = make_dataset(samples, seed=seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(zip(("x", "y"), self.pairs[index], strict=True))


def train(output: Path, epochs: int) -> None:
    """Train, and write into `output`."""
    torch.manual_seed(0)
    model = FNO(n_modes=(6, 6), in_channels=1, out_channels=1, hidden_channels=16, n_layers=2)
    optimizer = AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    trainer = Trainer(model=model, n_epochs=epochs, verbose=True)
    writer = SummaryWriter(output / "tensorboard")
    sinks = [ft.JsonFile(), ft.TensorBoard(writer)]
    with ft.integrations.neuralop.watch(trainer, sinks, every=20, folder=output):
        trainer.train(
            DataLoader(Named(64, seed=0), batch_size=8, shuffle=True),
            {"test": DataLoader(Named(16, seed=1), batch_size=8)},
            optimizer,
            scheduler,
            training_loss=LpLoss(d=2),
        )
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
