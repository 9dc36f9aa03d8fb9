"""Batches from a function that the user names, cut to the samples that are wanted."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch

from fno_telemetry.errors import InputError, ModelError, TelemetryError
from fno_telemetry.sources.batch_parts import as_tensor
from fno_telemetry.sources.batch_words import list_fields
from fno_telemetry.sources.factories import import_object
from fno_telemetry.tracing.nested_tensors import map_objects, map_tensors, tensors_in
from fno_telemetry.wording import describe_error


def read_batches(spec: str, max_samples: int) -> list[Any]:
    """Return batches of `package.module:function` until they hold `max_samples` samples.

    The function or iterable, such as a DataLoader, yields tensors, or what holds some: tuples, dicts,
    dataclasses. NumPy arrays in them become tensors. A tensor is cut to the samples still wanted; any other
    batch stays whole, since only the model knows which of its tensors have samples. InputError, one line, for
    whatever goes wrong in the function.
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


def count_samples(batch: Any) -> int:
    """Return the first size of the batch's first tensor; 1 where that has no axes."""
    first = find_first(batch)
    return first.shape[0] if first is not None and first.ndim else 1


def move_batch(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`; an object of another package moves itself."""
    if next(tensors_in(batch), None) is None and callable(getattr(batch, "to", None)):
        return batch.to(device)
    return map_tensors(batch, lambda tensor: tensor.to(device))


def find_first(batch: Any) -> torch.Tensor | None:
    """Return the first tensor of a batch; None where it holds none."""
    return next(chain(tensors_in(batch), tensors_in(list(list_fields(batch).values()))), None)


def explain_no_batches(batches: object) -> str:
    """Return what this is, and what was expected instead."""
    words = f"a {type(batches).__name__}; expected a tensor, or a list or iterator of batches"
    if isinstance(batches, np.ndarray):
        return f"{words}; torch.from_numpy makes a tensor of it"
    is_dataset = hasattr(batches, "__getitem__") and hasattr(batches, "__len__")
    if is_dataset and not isinstance(batches, str):
        return f"{words}; torch.utils.data.DataLoader(dataset, batch_size=4) makes batches of a dataset"
    return words


def _first(batches: Any, spec: str, most: int) -> Iterator[Any]:
    if isinstance(batches, torch.Tensor | tuple | dict):
        batches = [batches]
    if not isinstance(batches, Iterable):
        raise InputError(f"`batches` {spec} gave {explain_no_batches(batches)}")
    count = 0
    for given in batches:
        batch = map_objects(given, np.ndarray, as_tensor)
        if find_first(batch) is None:
            raise InputError(
                f"`batches` {spec} gave a batch of type {type(batch).__name__} without a tensor in it; "
                "give tensors, or tuples, dicts or dataclasses of tensors"
            )
        yield batch[: most - count] if isinstance(batch, torch.Tensor) and batch.ndim else batch
        count += count_samples(batch)
        if count >= most:
            return
