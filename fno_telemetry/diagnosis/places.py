"""Where a finding can be: the input, each call of a module, each block, the output, in order of execution."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, TensorRecord, Value

Entry = TypeVar("Entry", TensorRecord, ModuleRecord, BlockRecord, covariant=True)
AnySite = TypeVar("AnySite", bound="Site[Any]")


@dataclass(frozen=True)
class Site(Generic[Entry]):
    """One entry of a record with its place and its position in the forward.

    Positions are the orders in which modules finished; a block stands behind the last of its branches.
    """

    place: str
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


def input_site(record: CaptureRecord) -> Site[TensorRecord] | None:
    """Return where the model's input was measured."""
    return Site("input", -1.0, record.input) if record.input is not None else None


def output_site(record: CaptureRecord) -> Site[TensorRecord] | None:
    """Return where the first tensor that came out was measured."""
    return Site("output", math.inf, record.output) if record.output is not None else None


def module_sites(record: CaptureRecord) -> list[Site[ModuleRecord]]:
    """Return every call of every module in the order in which they finished."""
    found = sorted(record.modules, key=lambda module: module.order)
    return [Site(module.place, float(module.order), module) for module in found]


def block_sites(record: CaptureRecord) -> list[Site[BlockRecord]]:
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
        found.append(Site(block.place, last + 0.5, block))
    return sorted(found, key=lambda site: site.position)


def tensor_sites(record: CaptureRecord) -> list[Site[Any]]:
    """Return the input, the modules and the output, in order of execution."""
    ends = (input_site(record), output_site(record))
    first, last = ([end] if end is not None else [] for end in ends)
    return [*first, *module_sites(record), *last]


def stated(sites: Sequence[AnySite], statistic: str) -> list[tuple[AnySite, float]]:
    """Return the sites where the statistic is defined, each with its value."""
    return [(site, float(value)) for site in sites if (value := site.value(statistic)) is not None]


def usual_before(values: Sequence[float]) -> list[float | None]:
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


def behind(
    found: Sequence[tuple[Site[ModuleRecord], float]], of_its_kind: float, of_any: float
) -> list[tuple[float, float] | None]:
    """Return for each layer the median of those behind it, against which it is measured, and its limit.

    Gradients come from behind. Of layers of the same class and role the limit is `of_its_kind`; where none is
    behind it, of all layers `of_any`. None for the last layer of all.
    """
    usual: list[tuple[float, float] | None] = []
    for index, (site, _) in enumerate(found):
        later = [(_kind(other), value) for other, value in found[index + 1 :] if value > 0]
        alike = [value for kind, value in later if kind == _kind(site)]
        values, limit = (alike, of_its_kind) if alike else ([value for _, value in later], of_any)
        usual.append((median(values), limit) if values else None)
    return usual


def _kind(site: Site[ModuleRecord]) -> tuple[str, str]:
    return site.entry.class_name, site.entry.role


def others(values: Sequence[float], index: int) -> float | None:
    """Return the median of all values but one; None where there is no other."""
    rest = [*values[:index], *values[index + 1 :]]
    return median(rest) if rest else None


def counterpart(
    site: Site[Any], record: CaptureRecord | None, of: Callable[[CaptureRecord], list[AnySite]]
) -> AnySite | None:
    """Return the site of the same place in another record, the baseline for one."""
    if record is None:
        return None
    return next((other for other in of(record) if other.place == site.place), None)
