"""Batches to run a model on: from an input file, or from the function that `--batches` names."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import fno_telemetry as ft
from fno_telemetry import sources

if TYPE_CHECKING:
    import torch


def from_function(spec: str, most: int) -> list[Any]:
    """Return batches of `package.module:function` until they hold `most` samples; InputError in one line.

    A tensor is cut to the samples still wanted; a tuple or dict is whole, since only the model knows which
    of its tensors have samples.
    """
    try:
        made = sources.import_object(spec)
    except ft.ModelError as error:
        raise ft.InputError(f"--batches {error}") from error
    try:
        batches = list(_first(made() if callable(made) else made, spec, most))
    except ft.TelemetryError:
        raise
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise ft.InputError(f"--batches {spec} raised {type(error).__name__}: {error}") from error
    if not batches:
        raise ft.InputError(f"--batches {spec} gave no batch; at least one was expected")
    return batches


def first_tensor(batches: list[Any]) -> torch.Tensor | None:
    """Return the first tensor of the first batch."""
    return next(_tensors(batches[0]), None)


def length(batch: Any) -> int:
    """Return the number of samples in a batch: the first size of its first tensor."""
    first = next(_tensors(batch), None)
    return first.shape[0] if first is not None and first.ndim else 1


def on_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(on_device(part, device) for part in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(on_device(part, device) for part in batch)
    if isinstance(batch, dict):
        return {key: on_device(part, device) for key, part in batch.items()}
    return batch


def _first(batches: Any, spec: str, most: int) -> Iterator[Any]:
    import torch

    if isinstance(batches, torch.Tensor | tuple | dict):
        batches = [batches]
    if not isinstance(batches, Iterable):
        raise ft.InputError(
            f"--batches {spec} gave a {type(batches).__name__}; a list or generator of batches was expected"
        )
    count = 0
    for batch in batches:
        if next(_tensors(batch), None) is None:
            raise ft.InputError(
                f"--batches {spec} gave a batch of type {type(batch).__name__} without a tensor in it; "
                "give tensors, or tuples or dicts with tensors (torch.from_numpy makes them of arrays)"
            )
        yield batch[: most - count] if isinstance(batch, torch.Tensor) and batch.ndim else batch
        count += length(batch)
        if count >= most:
            return


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, tuple | list):
        for part in batch:
            yield from _tensors(part)
    elif isinstance(batch, dict):
        for part in batch.values():
            yield from _tensors(part)
