"""Batches from a function that the user names, cut to the samples that are wanted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from fno_telemetry.errors import InputError, ModelError, TelemetryError
from fno_telemetry.sources.factories import import_object
from fno_telemetry.tracing.nested_tensors import list_parts, map_tensors, tensors_in
from fno_telemetry.wording import describe_error

BATCH_NOTE = "fno-telemetry: a batch was taken to be "
"""How the note begins that a capture adds to an error of the model's forward; `describe_call` follows."""

_MOST_PARTS = 6  # of a batch that a description names


def read_batches(spec: str, max_samples: int) -> list[Any]:
    """Return batches of `package.module:function` until they hold `max_samples` samples.

    The function or iterable yields tensors, or what holds some: tuples, dicts, dataclasses. A tensor is cut
    to the samples still wanted; any other batch stays whole, since only the model knows which of its tensors
    have samples. InputError, one line, for whatever goes wrong in the function.
    """
    try:
        made = import_object(spec)
    except ModelError as error:
        raise InputError(f"`batches` {error}") from error
    try:
        batches = list(_first(made() if callable(made) else made, spec, max_samples))
    except TelemetryError:
        raise
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise InputError(f"`batches` {spec} raised {describe_error(error)}") from error
    if not batches:
        raise InputError(f"`batches` {spec} gave no batch; at least one was expected")
    return batches


def first_tensor(batches: Sequence[Any]) -> torch.Tensor | None:
    """Return the first tensor of the first batch; None where it holds none."""
    return next(tensors_in(batches[0]), None)


def count_samples(batch: Any) -> int:
    """Return the first size of the batch's first tensor; 1 where that has no axes."""
    first = next(tensors_in(batch), None)
    return first.shape[0] if first is not None and first.ndim else 1


def move_batch(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`."""
    return map_tensors(batch, lambda tensor: tensor.to(device))


def describe_call(args: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """Return what a model gets of a batch: `2 positional arguments: (4, 1, 64, 64) float32, (4,) int64`."""
    by_name = [f"{key}={describe_value(part)}" for key, part in keywords.items()]
    if len(args) == 1 and not by_name:
        return f"one argument: {describe_value(args[0])}"
    kinds = (("positional", list(map(describe_value, args))), ("keyword", by_name))
    return " and ".join(_counted(kind, parts) for kind, parts in kinds if parts) or "no argument"


def _counted(kind: str, parts: list[str]) -> str:
    return f"{len(parts)} {kind} argument{'' if len(parts) == 1 else 's'}: {_joined(parts)}"


def describe_value(value: Any, depth: int = 2) -> str:
    """Return shape and type of a tensor or array; the parts of a container, others by their type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    name = type(value).__name__
    inner = list_parts(value) if depth else ()
    parts = [f"{item}: {describe_value(part, depth - 1)}" for item, part in inner]
    return f"{name} of ({_joined(parts)})" if parts else name


def _joined(parts: list[str]) -> str:
    more = len(parts) - _MOST_PARTS
    return ", ".join(parts[:_MOST_PARTS]) + (f" and {more} more" if more > 0 else "")


def _first(batches: Any, spec: str, most: int) -> Iterator[Any]:
    if isinstance(batches, torch.Tensor | tuple | dict):
        batches = [batches]
    if not isinstance(batches, Iterable):
        raise InputError(
            f"`batches` {spec} gave a {type(batches).__name__}; a list or generator of batches was expected"
        )
    count = 0
    for batch in batches:
        if next(tensors_in(batch), None) is None:
            raise InputError(
                f"`batches` {spec} gave a batch of type {type(batch).__name__} without a tensor in it; "
                "give tensors, or tuples, dicts or dataclasses of tensors (torch.from_numpy converts arrays)"
            )
        yield batch[: most - count] if isinstance(batch, torch.Tensor) and batch.ndim else batch
        count += count_samples(batch)
        if count >= most:
            return
