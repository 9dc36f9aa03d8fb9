"""What a command runs models on: read once, for every checkpoint."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fno_telemetry as ft
from fno_telemetry import sources
from fno_telemetry_cli.options.model import Source, split_parts

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class InputBatches:
    """The batches that every checkpoint runs on, the device, and the functions that take their outputs."""

    device: torch.device
    arrays: tuple[sources.Samples, ...]  # the first input first; empty where `--batches` made them
    batches: list[Any]
    parts: sources.BatchParts
    prediction: Callable[[Any, Any], Any] | None = None
    loss: Callable[[Any, Any], Any] | str | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(sources.count_samples(self._select(batch)) for batch in self.batches)

    @property
    def first(self) -> torch.Tensor | None:
        """The first tensor of the first batch that goes into the model."""
        return sources.find_first(self._select(self.batches[0]))

    def _select(self, batch: Any) -> Any:
        """Return what goes into the model; the whole batch where it does not have the chosen parts.

        What is wrong with them is said when the model is known, which tells what would fit.
        """
        try:
            return self.parts.select_inputs(batch)
        except ft.InputError:
            return batch


def read_input(source: Source) -> InputBatches:
    """Check the options and read the input; TelemetryError, one line, for whatever cannot be used."""
    source.check()
    device = _find_device(source.weights.device)
    prediction = _import_function("--prediction", source.prediction, "(prediction, target)")
    loss = _find_loss(source.loss)
    arrays, batches, parts = _read_batches(source)
    return InputBatches(device, arrays, batches, parts, prediction, loss)


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


def _find_loss(spec: str | None) -> Callable[[Any, Any], Any] | str | None:
    """Return a function, or the name of a loss that is known."""
    from fno_telemetry.statistics import NAMED_LOSSES

    if spec is None or spec in NAMED_LOSSES:
        return spec
    if ":" not in spec:
        names = ", ".join(NAMED_LOSSES)
        raise ft.OptionError(f"--loss {spec!r}: expected {names} or package.module:function")
    return _import_function("--loss", spec, "scalar")


def _import_function(option: str, spec: str | None, returns: str) -> Callable[[Any, Any], Any] | None:
    if spec is None:
        return None
    try:
        found = sources.import_object(spec)
    except ft.ModelError as error:
        raise ft.OptionError(f"{option} {error}") from error
    if not callable(found):
        raise ft.OptionError(
            f"{option} {spec} is of type {type(found).__name__}; "
            f"a function (output, batch) -> {returns} was expected"
        )
    return found  # type: ignore[no-any-return]


def _read_batches(source: Source) -> tuple[tuple[sources.Samples, ...], list[Any], sources.BatchParts]:
    data = source.data
    inputs, target = split_parts("--inputs", data.inputs), split_parts("--target", data.target)
    if data.input is None:
        parts = sources.BatchParts.choose(inputs or None, target or None)
        return (), sources.read_batches(data.batches or "", data.max_samples), parts
    read = sources.read_file_batches(
        data.input,
        inputs=inputs,
        target=target,
        key=data.key,
        axes=data.axes,
        max_samples=data.max_samples,
        batch_size=data.batch_size or 1,
        allow_complex=source.network.model is not None,
    )
    return read.arrays, read.batches, read.parts
