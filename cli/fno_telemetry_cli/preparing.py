"""From options to a model on its device and the batches to run: everything that can be refused is, here."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fno_telemetry as ft
from fno_telemetry import plugins, sources
from fno_telemetry_cli import batches as batches_of
from fno_telemetry_cli.invocation import without_secret
from fno_telemetry_cli.options import Source

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class InputBatches:
    """What every checkpoint of a command is run on, on which device, and by which loss it is judged."""

    device: torch.device
    samples: sources.Samples | None  # None where `--batches` made them
    batches: list[Any]
    loss: Callable[[Any, Any], Any] | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return sum(map(batches_of.length, self.batches))


@dataclass(frozen=True)
class Prepared:
    """What one capture needs."""

    model: nn.Module
    batches: list[Any]
    samples: int
    given: Mapping[str, ft.GivenRole]
    summary: dict[str, Any]
    provenance: dict[str, Any]
    warnings: tuple[str, ...] = ()
    loss: Callable[[Any, Any], Any] | None = None


def read_input(source: Source) -> InputBatches:
    """Check the options and read the input; TelemetryError in one line for whatever cannot be used."""
    _check(source)
    device = _device(source.device)
    loss = None if source.loss is None else _loss(source.loss)
    samples, batches = _input(source)
    return InputBatches(device, samples, batches, loss)


def prepare(source: Source, given_input: InputBatches) -> Prepared:
    """Read the weights and build the model; TelemetryError in one line for whatever cannot be used."""
    settings = sources.parse_settings(source.settings)
    given = ft.read_map(source.map_file) if source.map_file else {}
    checkpoint = None
    if source.checkpoint is not None:
        checkpoint = sources.read_checkpoint(source.checkpoint, trust=source.trust_checkpoint)
    samples = given_input.samples
    first = batches_of.first_tensor(given_input.batches)
    if source.model is not None:
        network = _from_factory(source, settings, checkpoint)
    else:
        network = _from_name(source, settings, checkpoint, first)
    model, moved = _moved(network.model, given_input.batches, given_input.device)
    summary = {
        "architecture": network.architecture,
        "channels": first.shape[1] if first is not None and first.ndim > 1 else None,
        "weights": network.weights,
        "checkpoint_step": checkpoint.step if checkpoint else None,
        "step_kind": checkpoint.step_kind if checkpoint else None,
    }
    return Prepared(
        model,
        moved,
        given_input.count,
        given,
        summary,
        _provenance(source, network, samples, checkpoint),
        (*(samples.warnings if samples else ()), *network.warnings),
        given_input.loss,
    )


def _check(source: Source) -> None:
    if (source.input is None) == (source.batches is None):
        raise ft.OptionError("give --input FILE or --batches package.module:function, one of the two")
    if source.model is not None and source.architecture is not None:
        raise ft.OptionError("give --architecture or --model, not both")
    for option, value in (("--batch-size", source.batch_size), ("--max-samples", source.max_samples)):
        if value is not None and value < 1:
            raise ft.OptionError(f"{option} {value}: at least 1 was expected")
    if source.batches is not None and source.batch_size is not None:
        raise ft.OptionError("--batch-size is for --input; the function of --batches makes its own batches")
    if source.batches is not None and (source.key or source.axes):
        raise ft.OptionError("--key and --axes are for --input; leave them out with --batches")
    if not source.checkpoints and (source.trust_checkpoint or source.allow_missing):
        raise ft.OptionError("--trust-checkpoint and --allow-missing need --checkpoint FILE")
    if not 0 <= source.seed < 2**63:
        raise ft.OptionError(f"--seed {source.seed}: a number from 0 to 2^63 - 1 was expected")


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ft.OptionError(f"--device {name!r}: not a device; expected cpu, cuda, cuda:1, mps, …") from None
    try:
        torch.empty(1, device=device).cpu()
    except Exception as error:  # backends raise what they like for a device that is not there
        raise ft.OptionError(
            f"--device {name!r} is not available here ({_first_line(error)}); --device cpu is everywhere"
        ) from error
    return device


def _loss(spec: str) -> Callable[[Any, Any], Any]:
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


def _input(source: Source) -> tuple[sources.Samples | None, list[Any]]:
    if source.input is None:
        return None, batches_of.from_function(source.batches or "", source.max_samples)
    samples = sources.read_samples(
        source.input,
        key=source.key,
        axes=source.axes,
        max_samples=source.max_samples,
        allow_complex=source.model is not None,
    )
    return samples, list(sources.split_batches(samples.values, source.batch_size or 1))


def _from_factory(
    source: Source, settings: Mapping[str, object], checkpoint: sources.Checkpoint | None
) -> sources.Network:
    model = sources.build_from_factory(source.model or "", settings, source.seed)
    name = type(model).__name__
    if checkpoint is None:
        # A factory may load weights itself, so nothing more can be said of them.
        return sources.Network(model, name, settings, f"as made by {source.model}, seed {source.seed}")
    match = sources.load_weights(model, checkpoint, allow_missing=source.allow_missing)
    return sources.Network(model, name, settings, "checkpoint", match.warnings, match)


def _from_name(
    source: Source,
    settings: Mapping[str, object],
    checkpoint: sources.Checkpoint | None,
    first: torch.Tensor | None,
) -> sources.Network:
    if first is None or first.ndim != 4:
        shape = None if first is None else tuple(first.shape)
        raise ft.InputError(
            f"{source.input or source.batches}: gives batches of shape {shape}, the built-in networks take "
            "(samples, channels, height, width); choose --axes, or another network by --model"
        )
    architectures = {name: plugins.load("architectures", name) for name in plugins.names("architectures")}
    return sources.build_network(
        architectures,
        source.architecture,
        checkpoint=checkpoint,
        settings=settings,
        channels=first.shape[1],
        size=min(first.shape[2:]),
        seed=source.seed,
        allow_missing=source.allow_missing,
    )


def _moved(model: nn.Module, batches: list[Any], device: torch.device) -> tuple[nn.Module, list[Any]]:
    try:
        return model.to(device), [batches_of.on_device(batch, device) for batch in batches]
    except Exception as error:  # backends raise what they like when memory runs out
        raise ft.OptionError(
            f"--device {device}: model and input cannot be moved there ({_first_line(error)}); "
            "lower --max-samples, or use --device cpu"
        ) from error


def _provenance(
    source: Source,
    network: sources.Network,
    samples: sources.Samples | None,
    checkpoint: sources.Checkpoint | None,
) -> dict[str, Any]:
    found: dict[str, Any] = {"seed": source.seed, "arguments": _plain(network.arguments)}
    if samples is None:
        found["input"] = {"batches": source.batches}
    else:
        stored = {"shape": list(samples.stored_shape), "dtype": samples.stored_dtype}
        named = {"path": samples.path, "key": samples.key, "axes": samples.axes}
        found["input"] = named | {"stored": stored}
    if source.loss is not None:
        found["loss"] = source.loss
    if checkpoint is not None:
        name = source.checkpoint_name or Path(checkpoint.path).stem
        found["checkpoint"] = {"name": name, "path": checkpoint.path, "sha256": checkpoint.sha256}
    return found


def _plain(value: Any, key: str = "") -> Any:
    """Return arguments as a report can hold them: anything but plain values by its repr, secrets masked."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part, str(name)) for name, part in value.items()}
    if without_secret(f"{key}=?") != f"{key}=?":
        return "***"
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | None) else repr(value)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
