"""What a command runs models on: read once, for every checkpoint."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fno_telemetry as ft
from fno_telemetry import sources
from fno_telemetry_cli.options.model import Source

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InputBatches:
    """The batches that every checkpoint runs on, the device, and the loss whose gradients are captured."""

    device: torch.device
    samples: sources.Samples | None  # None where `--batches` made them
    batches: list[Any]
    loss: Callable[[Any, Any], Any] | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(map(sources.count_samples, self.batches))

    @property
    def first(self) -> torch.Tensor | None:
        """The first tensor of the first batch."""
        return sources.first_tensor(self.batches)


def read_input(source: Source) -> InputBatches:
    """Check the options and read the input; TelemetryError, one line, for whatever cannot be used."""
    source.check()
    device = _find_device(source.weights.device)
    loss = None if source.loss is None else _import_loss(source.loss)
    samples, batches = _read_batches(source)
    return InputBatches(device, samples, batches, loss)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _find_device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ft.OptionError(f"--device {name!r}: not a device; expected cpu, cuda, cuda:1, mps, …") from None
    try:
        torch.empty(1, device=device).cpu()
    except Exception as error:  # backends raise what they like for a device that is not there
        raise ft.OptionError(
            f"--device {name!r} is not available here ({first_line(error)}); --device cpu always is"
        ) from error
    return device


def _import_loss(spec: str) -> Callable[[Any, Any], Any]:
    try:
        found = sources.import_object(spec)
    except ft.ModelError as error:
        raise ft.OptionError(f"--loss {error}") from error
    if not callable(found):
        raise ft.OptionError(
            f"--loss {spec} is of type {type(found).__name__}; "
            "a function (output, batch) -> scalar was expected"
        )
    return found  # type: ignore[no-any-return]


def _read_batches(source: Source) -> tuple[sources.Samples | None, list[Any]]:
    data = source.data
    if data.input is None:
        return None, sources.read_batches(data.batches or "", data.max_samples)
    samples = sources.read_samples(
        data.input,
        key=data.key,
        axes=data.axes,
        max_samples=data.max_samples,
        allow_complex=source.network.model is not None,
    )
    return samples, list(sources.split_batches(samples.values, data.batch_size or 1))
