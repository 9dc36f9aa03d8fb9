"""An evenly spread share of the fields or elements of a tensor, without a seed: the same in every run.

The places are the multiples of the golden ratio, without their whole parts, times the number of all: no other
sequence leaves smaller gaps [1]. A fixed stride would see the same few columns of every field.

[1] Graham, van Lint: On the distribution of n·theta modulo 1. Canadian Journal of Mathematics 20, 1968.
"""

from functools import lru_cache

import numpy as np
import torch

LIGHT_ELEMENTS = 1 << 16
"""Elements of a tensor in a batch of which percentiles are taken with a light budget, at most."""

LIGHT_FIELDS = 8
"""With a light budget, one in so many fields is transformed."""

FEWEST_FIELDS = 16

_GOLDEN = (5**0.5 - 1) / 2


def spread_elements(of: int, device: torch.device) -> torch.Tensor | None:
    """Return the indices of the elements in the share; None for all."""
    return None if of < 2 * LIGHT_ELEMENTS else _spread(LIGHT_ELEMENTS, of, device)


def spread_fields(of: int, device: torch.device) -> torch.Tensor | None:
    """Return the indices of the fields in the share; None for all."""
    number = max(of // LIGHT_FIELDS, FEWEST_FIELDS)
    return None if of < 2 * number else _spread(number, of, device)


@lru_cache(maxsize=64)
def _spread(number: int, of: int, device: torch.device) -> torch.Tensor:
    """Return `number` indices below `of`, at least twice as large, in ascending order; int64."""
    places = (np.arange(1, number + 1) * _GOLDEN) % 1.0
    return torch.from_numpy(np.unique((places * of).astype(np.int64))).to(device)
