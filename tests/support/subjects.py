"""What statistics of two tensors are given, for tests that have the two."""

from typing import Any

from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.subjects import BlockCall, BranchSum, Comparison, ResidualUpdate

_OF_TWO = {
    "branch_sum": BranchSum,
    "residual_update": ResidualUpdate,
    "block": BlockCall,
    "block_spectra": BlockCall,
    "comparison": Comparison,
}


def of_two(statistic: Any, first: Activation, second: Activation) -> Any:
    """Return the subject that this statistic measures, made of two activations."""
    return _OF_TWO[statistic.of](first, second)
