"""The places of findings: the input, each call of a module, each block, the output, in execution order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median, median_high, median_low
from typing import Any, Generic, TypeVar

from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, TensorRecord, Value

Entry = TypeVar("Entry", TensorRecord, ModuleRecord, BlockRecord, covariant=True)
AnyPlace = TypeVar("AnyPlace", bound="Place[Any]")


@dataclass(frozen=True)
class Place(Generic[Entry]):
    """One entry of a record with its name and its position in the forward.

    Positions are the orders in which modules finished; a block comes right after the last of its branches.
    """

    name: str
    position: float
    entry: Entry

    def value(self, statistic: str) -> Value:
        """Return the value of a statistic; None where it is undefined or was not measured."""
        value: Value = self.entry.stats.get(statistic)
        return value

    @property
    def role(self) -> str | None:
        """The role of a module; None for anything else."""
        return self.entry.role if isinstance(self.entry, ModuleRecord) else None


def input_place(record: CaptureRecord) -> Place[TensorRecord] | None:
    """Return the place of the model's input, None where it was not measured."""
    return Place("input", -1.0, record.input) if record.input is not None else None


def output_place(record: CaptureRecord) -> Place[TensorRecord] | None:
    """Return the place of the first tensor that the model returned, None where it was not measured."""
    return Place("output", math.inf, record.output) if record.output is not None else None


def target_place(record: CaptureRecord) -> Place[TensorRecord] | None:
    """Return the place of the target, None where none is known."""
    return Place("target", -0.5, record.target) if record.target is not None else None


def module_places(record: CaptureRecord) -> list[Place[ModuleRecord]]:
    """Return every call of every module in the order in which they finished."""
    return [*_find_module_places(_Same(record))]


def find_module_of_all(record: CaptureRecord, parameters: Sequence[str]) -> Place[ModuleRecord] | None:
    """Return the smallest module that holds all of these parameters; None for the whole model."""
    there = {place.name: place for place in module_places(record)}
    common, *others = (name.split(".")[:-1] for name in parameters)
    for other in others:
        while common and other[: len(common)] != common:
            common = common[:-1]
    while common:
        if ".".join(common) in there:
            return there[".".join(common)]
        common = common[:-1]
    return None


def block_places(record: CaptureRecord) -> list[Place[BlockRecord]]:
    """Return every block in execution order."""
    return [*_find_block_places(_Same(record))]


class _Same:
    """A record as a key: equal to itself alone, since comparing all numbers takes longer than a rule."""

    __slots__ = ("record",)

    def __init__(self, record: CaptureRecord) -> None:
        self.record = record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.record is self.record

    def __hash__(self) -> int:
        return id(self.record)


# Every rule asks for the places of one record, and some for those of the baseline, before the next record.
@lru_cache(maxsize=2)
def _find_module_places(key: _Same) -> tuple[Place[ModuleRecord], ...]:
    found = sorted(key.record.modules, key=lambda module: module.order)
    return tuple(Place(module.place, float(module.order), module) for module in found)


@lru_cache(maxsize=2)
def _find_block_places(key: _Same) -> tuple[Place[BlockRecord], ...]:
    record = key.record
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
    return tuple(sorted(found, key=lambda place: place.position))


def tensor_places(record: CaptureRecord) -> list[Place[Any]]:
    """Return the input, the modules and the output, in execution order."""
    ends = (input_place(record), output_place(record))
    first, last = ([end] if end is not None else [] for end in ends)
    return [*first, *module_places(record), *last]


def select_defined(places: Sequence[AnyPlace], statistic: str) -> list[tuple[AnyPlace, float]]:
    """Return the places where the statistic is defined, each with its value."""
    return [(place, float(value)) for place in places if (value := place.value(statistic)) is not None]


def medians_before(values: Sequence[float]) -> list[float | None]:
    """Return for each value the median of the earlier values above zero; None where there is none.

    A layer is compared with earlier layers only: next to the layers after an explosion, every layer before it
    would look small.
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
    """Return for each layer the median of the later layers with which it is compared, and the limit.

    Gradients come from later layers. The median is of those with the same class and role, with the limit
    `of_its_kind`; where there are none, of all later layers, with the limit `of_any`. None for the last one.
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


def median_of_others(values: Sequence[float], index: int, *, high: bool) -> float | None:
    """Return the median of all values but the one at `index`; None where there is no other.

    Of two values in the middle it is the higher one, or the lower one, not their mean: of two others, one
    that is far off would put the mean beyond both.
    """
    rest = [*values[:index], *values[index + 1 :]]
    return (median_high if high else median_low)(rest) if rest else None


def find_counterpart(
    place: Place[Any], record: CaptureRecord | None, of: Callable[[CaptureRecord], list[AnyPlace]]
) -> AnyPlace | None:
    """Return the place of the same name in another record, such as the baseline."""
    if record is None:
        return None
    return next((other for other in of(record) if other.name == place.name), None)
