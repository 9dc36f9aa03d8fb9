"""All kinds by name."""

from collections.abc import Mapping

from benchmarks.natural_failures.kinds import (
    construction,
    generalisation,
    inputs,
    orders,
    parameters,
    rates,
    targets,
)
from benchmarks.natural_failures.kinds.contract import Kind

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for module in (rates, parameters, inputs, targets, orders, construction, generalisation)
    for kind in module.KINDS
}
