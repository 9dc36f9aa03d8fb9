"""The part of a parameter that one process counts where parameters are spread over several, as by FSDP."""

from typing import Any

import torch


def is_spread(parameter: torch.Tensor) -> bool:
    """Return whether a parameter is spread over processes: a sum over all of it would wait for the others."""
    return hasattr(parameter, "to_local")


def own_share(parameter: torch.Tensor) -> torch.Tensor:
    """Return the elements that this process counts of a spread parameter or of its gradient, maybe none.

    Every element belongs to one process: of copies, the first one counts. A parameter that is not spread is
    returned as it is.
    """
    if not is_spread(parameter):
        return parameter
    spread: Any = parameter
    local: torch.Tensor = spread.to_local().detach()
    at = spread.device_mesh.get_coordinate() or ()
    for index, placement in zip(at, spread.placements, strict=True):
        if placement.is_partial():
            raise ValueError("the parameter has not been reduced over the processes")
        if placement.is_replicate() and index:
            return local.reshape(-1)[:0]
    return local
