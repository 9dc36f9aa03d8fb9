"""Where a finding can be: the input, each call of a module, each block, the output, in order of execution."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, TensorRecord, Value

Entry = TypeVar("Entry", TensorRecord, ModuleRecord, BlockRecord, covariant=True)
AnyPlace = TypeVar("AnyPlace", bound="Place[Any]")


@dataclass(frozen=True)
class Place(Generic[Entry]):
    """One entry of a record with its place and its position in the forward.

    Positions are the orders in which modules finished; a block stands behind the last of its branches.
    """

    name: str
    position: float
    entry: Entry

    def value(self, statistic: str) -> Value:
        """Return a statistic; None where it is undefined or was not measured."""
        value: Value = self.entry.stats.get(statistic)
        return value

    @property
    def role(self) -> str | None:
        """The role of a module; None of anything else."""
        return self.entry.role if isinstance(self.entry, ModuleRecord) else None


def input_place(record: CaptureRecord) -> Place[TensorRecord] | None:
    """Return where the model's input was measured."""
    return Place("input", -1.0, record.input) if record.input is not None else None


def output_place(record: CaptureRecord) -> Place[TensorRecord] | None:
    """Return where the first tensor that came out was measured."""
    return Place("output", math.inf, record.output) if record.output is not None else None


def module_places(record: CaptureRecord) -> list[Place[ModuleRecord]]:
    """Return every call of every module in the order in which they finished."""
    found = sorted(record.modules, key=lambda module: module.order)
    return [Place(module.place, float(module.order), module) for module in found]


def block_places(record: CaptureRecord) -> list[Place[BlockRecord]]:
    """Return every block in order of execution."""
    orders: dict[tuple[str, int], int] = {}
    for module in record.modules:
        orders[module.name, module.call] = max(module.order, orders.get((module.name, module.call), -1))
    found = []
    for index, block in enumerate(record.blocks):
        branches = (*block.spectral, *block.local)
        # A module that several blocks share has a call for each of them.
        known = [orders.get((name, block.call), orders.get((name, 0))) for name in branches]
        last = max((order for order in known if order is not None), default=len(record.modules) + index)
        found.append(Place(block.place, last + 0.5, block))
    return sorted(found, key=lambda place: place.position)


def tensor_places(record: CaptureRecord) -> list[Place[Any]]:
    """Return the input, the modules and the output, in order of execution."""
    ends = (input_place(record), output_place(record))
    first, last = ([end] if end is not None else [] for end in ends)
    return [*first, *module_places(record), *last]


def select_defined(places: Sequence[AnyPlace], statistic: str) -> list[tuple[AnyPlace, float]]:
    """Return the sites where the statistic is defined, each with its value."""
    return [(place, float(value)) for place in places if (value := place.value(statistic)) is not None]


def medians_before(values: Sequence[float]) -> list[float | None]:
    """Return for each value the median of those before it that are above zero; None where there is none.

    What a layer is measured against has to be older than the layer: after an explosion everything before
    looks small beside what comes behind.
    """
    before: list[float] = []
    usual = []
    for value in values:
        usual.append(median(before) if before else None)
        if value > 0:
            before.append(value)
    return usual


def medians_downstream(
    found: Sequence[tuple[Place[ModuleRecord], float]], of_its_kind: float, of_any: float
) -> list[tuple[float, float] | None]:
    """Return for each layer the median of those behind it, against which it is measured, and its limit.

    Gradients come from behind. Of layers of the same class and role the limit is `of_its_kind`; where none is
    behind it, of all layers `of_any`. None for the last layer of all.
    """
    usual: list[tuple[float, float] | None] = []
    for index, (place, _) in enumerate(found):
        later = [(_kind(other), value) for other, value in found[index + 1 :] if value > 0]
        alike = [value for kind, value in later if kind == _kind(place)]
        values, limit = (alike, of_its_kind) if alike else ([value for _, value in later], of_any)
        usual.append((median(values), limit) if values else None)
    return usual


def _kind(place: Place[ModuleRecord]) -> tuple[str, str]:
    return place.entry.class_name, place.entry.role


def others(values: Sequence[float], index: int) -> float | None:
    """Return the median of all values but one; None where there is no other."""
    rest = [*values[:index], *values[index + 1 :]]
    return median(rest) if rest else None


def counterpart(
    place: Place[Any], record: CaptureRecord | None, of: Callable[[CaptureRecord], list[AnyPlace]]
) -> AnyPlace | None:
    """Return the site of the same place in another record, the baseline for one."""
    if record is None:
        return None
    return next((other for other in of(record) if other.name == place.name), None)
