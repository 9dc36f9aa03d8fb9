"""An evenly spread share of the fields or elements of a tensor, without a seed: the same in every run.

The places are the multiples of the golden ratio, without their whole parts, times the number of all: no other
sequence leaves smaller gaps [1]. A fixed stride would see the same few columns of every field.

[1] Graham, van Lint: On the distribution of n·theta modulo 1. Canadian Journal of Mathematics 20, 1968.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

LIGHT_ELEMENTS = 1 << 16
"""Elements of a larger tensor of which percentiles are taken with a light budget, in the first batch."""

LIGHT_FIELDS = 8
"""With a light budget, one in so many fields is transformed."""

FEWEST_FIELDS = 16

_GOLDEN = (5**0.5 - 1) / 2


class Shares(NamedTuple):
    """The shares of the elements and of the fields of a tensor; 1 is all of them.

    They have to be the same in every batch: otherwise a small one would count more than a large one.
    """

    elements: float = 1.0
    fields: float = 1.0


WHOLE = Shares()


def choose_shares(elements: int, fields: int) -> Shares:
    """Return the shares of a tensor with these numbers of elements and fields."""
    number = max(fields // LIGHT_FIELDS, FEWEST_FIELDS)
    return Shares(
        elements=LIGHT_ELEMENTS / elements if elements >= 2 * LIGHT_ELEMENTS else 1.0,
        fields=number / fields if fields >= 2 * number else 1.0,
    )


def spread(share: float, of: int, device: torch.device) -> torch.Tensor | None:
    """Return the indices of a share of so many things; None for all."""
    return None if share == 1 or of < 2 else spread_places(max(round(share * of), 1), of, device)


@lru_cache(maxsize=64)
def spread_places(number: int, of: int, device: torch.device) -> torch.Tensor:
    """Return about `number` indices below `of`, in ascending order; int64."""
    places = (np.arange(1, number + 1) * _GOLDEN) % 1.0
    return torch.from_numpy(np.unique((places * of).astype(np.int64))).to(device)
