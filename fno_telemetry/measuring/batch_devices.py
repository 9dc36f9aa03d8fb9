"""Batches of a loader, which are usually on the CPU, on the device of the model."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import nn

from fno_telemetry.sources.loaders import move_batch
from fno_telemetry.tracing.nested_tensors import tensors_in

_CPU = torch.device("cpu")


def follow_model(batches: Iterable[Any], model: nn.Module) -> Iterator[Any]:
    """Yield the batches; of a model that is on one device, those that are on the CPU are moved there.

    A batch with a tensor on another device stays as it is: it was put where the model wants it.
    """
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    [device] = devices if len(devices) == 1 else [_CPU]
    for batch in batches:
        on_cpu = device != _CPU and all(tensor.device == _CPU for tensor in tensors_in(batch))
        yield move_batch(batch, device) if on_cpu else batch
