"""What the tensors that a call is given, or returns, tell of it without their values."""

from collections.abc import Iterable

import torch

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.tensor_shapes import read_shape


def list_field_shapes(value: object) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the tensors in a batch without their first axes, which is that of the samples."""
    return tuple((read_shape(tensor) or ())[1:] for tensor in tensors_in(value))


def count_first_writes(inputs: object) -> int | None:
    """Return torch's count of writes to the first tensor of the inputs; None without one."""
    first = next(tensors_in(inputs), None)
    return None if first is None else count_writes(first)


def read_field_shape(inputs: object) -> tuple[int, ...]:
    """Return the shape of the first tensor of the inputs, without its first axis; () without a tensor."""
    first = next(tensors_in(inputs), None)
    return () if first is None else (read_shape(first) or ())[1:]


def read_ranks(tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
    """Return the number of axes of each tensor; -1 for one without a shape in numbers."""
    shapes = map(read_shape, tensors)
    return tuple(-1 if shape is None else len(shape) for shape in shapes)
