"""Captures by several processes, as functions that each process of a group calls."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.report import as_document


class SpectralConv(nn.Module):
    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, modes, modes, dtype=torch.cfloat) / width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = torch.fft.rfft2(x)[..., : self.modes, : self.modes]
        mixed = torch.einsum("bixy,ioxy->boxy", kept, self.weight)
        return torch.fft.irfft2(mixed, s=x.shape[-2:])


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.spectral = SpectralConv(width, 4)
        self.local = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.spectral(x) + self.local(x))


class Operator(nn.Module):
    """Two residual blocks with a spectral and a local branch."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.lifting = nn.Conv2d(1, width, 1)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm = nn.LayerNorm([width, 12, 10])
        self.projection = nn.Conv2d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lifting(x)
        for block in self.blocks:
            x = block(x)
        return self.projection(x if x.shape[-1] != 10 else self.norm(x))


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return Operator()


def make_batches(sizes: tuple[int, ...] = (2, 2, 2, 2, 1)) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches with a target, of which no two are of the same size and strength."""
    generator = torch.Generator().manual_seed(7)
    batches = []
    for index, size in enumerate(sizes):
        x = (1 + index) * torch.randn(size, 1, 12, 10, generator=generator) + index
        batches.append((x, x.roll(1, 2) * 0.5))
    return batches


def capture_with_a_target(rank: int, folder: Path) -> Any:
    return as_document(capture(make_network(), make_batches(), loss="mse"))


def capture_one_batch(rank: int, folder: Path) -> Any:
    return as_document(capture(make_network(), make_batches((3,)), loss="mse"))


def capture_lightly(rank: int, folder: Path) -> Any:
    batches = [(torch.randn(n, 1, 96, 96, generator=torch.Generator().manual_seed(n)),) for n in (8, 8, 3)]
    return as_document(ft.capture(make_network(), batches, budget="light", over_processes=True))


class Skips(nn.Module):
    """Calls a layer only for samples of a large mean, which its plan does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 3, 1)
        self.some = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Conv2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        if x.mean() > 2:
            hidden = torch.relu(self.some(hidden))
        return self.last(hidden)


def capture_with_a_layer_that_some_skip(rank: int, folder: Path) -> Any:
    torch.manual_seed(1)
    return as_document(capture(Skips(), make_batches()))


def capture_with_holes(rank: int, folder: Path) -> Any:
    batches = make_batches()
    batches[1][0][0, 0, 1, 2] = float("nan")
    batches[3][0][:] = float("inf")
    return as_document(capture(make_network(), batches))


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 2:
            raise RuntimeError("too large")
        return self.layer(x)


def capture_that_fails_in_one_process(rank: int, folder: Path) -> Any:
    try:
        capture(Fails(), make_batches())
    except Exception as error:  # noqa: BLE001 - of any kind
        return [type(error).__name__, str(error)]
    return None


def capture(model: nn.Module, batches: Any, loss: Any = None) -> ft.CaptureRecord:
    return ft.capture(model, batches, inputs=0, target=1, loss=loss, over_processes=True)
