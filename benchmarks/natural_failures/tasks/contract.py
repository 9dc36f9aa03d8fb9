"""What a task is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pairs = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Inputs (N, C, *S) and targets (N, K, *S) in physical units."""


@dataclass(frozen=True)
class Task:
    """A problem to be learned; `make(rng, number, size)` returns its pairs."""

    name: str
    make: Callable[[np.random.Generator, int, int], Pairs]
    dimension: int  # of the fields
    size: int  # of the training grid along each axis
    inputs: int  # channels
    targets: int  # channels
    is_complex: bool = False  # the targets are amplitude and phase of one complex field
    set_aside: bool = False  # serves for judging only
