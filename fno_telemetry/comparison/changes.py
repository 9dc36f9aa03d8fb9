"""The changes of one layer or block between two records, and whether they are worse."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.quantities import OF_THE_TENSOR, QUANTITIES, SHARE, Quantity, by_rank, look_up
from fno_telemetry.records import (
    BlockRecord,
    CaptureRecord,
    ModuleRecord,
    TensorRecord,
    Value,
    place_name,
)
from fno_telemetry.wording import format_number, format_percent

VARIATION = "sample_variation"


@dataclass(frozen=True)
class Change:
    """One statistic that changed; `severity` is "warning" or "error" if it became worse, else "note"."""

    statistic: str
    before: Value
    after: Value
    severity: str
    message: str


@dataclass(frozen=True)
class LayerChange:
    """The difference of one call of a layer, or of one block, between two records."""

    name: str
    call: int
    item: str | None
    role: str
    differs: bool
    distance: float | None  # Wasserstein-1 between log10 |x|, in decades
    psi: float | None  # population stability index
    spectral_distance: float | None  # Wasserstein-1 between spectra, as a share of Nyquist
    changes: tuple[Change, ...]
    same_as: str | None = None  # the place of an earlier module that returns the same tensor

    @property
    def severity(self) -> str | None:
        """The highest severity of its changes; None without changes."""
        severities = [SEVERITIES.index(change.severity) for change in self.changes]
        return SEVERITIES[max(severities)] if severities else None

    @property
    def place(self) -> str:
        """Name, call and item in one text: `fno_blocks@1`, `head[0]`."""
        return place_name(self.name, self.call, self.item)


@dataclass(frozen=True)
class Scales:
    """The smallest and the largest rms in a network, its input included.

    A healthy layer may change its rms by a factor of a hundred when training brings it to the scale of the
    data; a layer that collapses leaves the range of scales that the network had.
    """

    smallest: float
    largest: float

    @classmethod
    def of(cls, record: CaptureRecord) -> "Scales":
        """Return the scales of a record; 0 and infinity if it has no rms."""
        entries = [*record.modules, *([] if record.input is None else [record.input])]
        values = [rms for entry in entries if (rms := entry.stats.get("rms"))]
        return cls(min(values, default=0.0), max(values, default=math.inf))


@dataclass(frozen=True)
class Judgement:
    """How the changes between two records are judged.

    `scales` are those of the network before; `stored` are the quantities of other packages in the records.
    `learning`: whether the changes are those of learning, so that only values that are dead or far
    beyond its scales are worse.
    """

    limits: Thresholds
    scales: Scales
    stored: Sequence[Quantity] = ()
    learning: bool = False

    @cached_property
    def may_be_worse(self) -> Sequence[Quantity]:
        """The quantities of which a change may be worse, by rank."""
        known = look_up([*QUANTITIES, *(quantity.name for quantity in self.stored)], self.stored)
        return by_rank(each for each in known.values() if each.compared and each.worse != "none")


def module_change(before: ModuleRecord, after: ModuleRecord, judgement: Judgement) -> LayerChange:
    """Compare two records of the same call of the same module."""
    # numpy takes longer to import than many reports to read, and whether something is worse needs none.
    from fno_telemetry.comparison.distances import (
        population_stability_index,
        spectral_distance,
        wasserstein_decades,
    )

    limits = judgement.limits
    distance = wasserstein_decades(before.log_histogram, after.log_histogram)
    spectral = spectral_distance(before.spectrum, after.spectrum)
    changes = (*worse_module_changes(before, after, judgement), *_differences(before, after, judgement))
    beyond = (distance or 0) >= limits.distance or (spectral or 0) >= limits.share
    return LayerChange(
        name=before.name,
        call=before.call,
        item=before.item,
        role=after.role,
        differs=bool(changes) or beyond,
        distance=distance,
        psi=population_stability_index(before.log_histogram, after.log_histogram),
        spectral_distance=spectral,
        changes=changes,
    )


def block_change(before: BlockRecord, after: BlockRecord, judgement: Judgement) -> LayerChange:
    """Compare two records of the same block."""
    changes = (*worse_block_changes(before, after, judgement), *_differences(before, after, judgement))
    return LayerChange(before.name, before.call, None, "block", bool(changes), None, None, None, changes)


def worse_module_changes(before: ModuleRecord, after: ModuleRecord, judgement: Judgement) -> Iterator[Change]:
    """Yield what is worse in a call of a module: values that are no longer finite, then numbers by rank."""
    yield from _no_longer_finite(before, after)
    yield from worse_block_changes(before, after, judgement)


def worse_block_changes(
    before: ModuleRecord | BlockRecord, after: ModuleRecord | BlockRecord, judgement: Judgement
) -> Iterator[Change]:
    """Yield the numbers of a block, or of a module, that are worse, by rank."""
    judge = _dead_or_far if judgement.learning else _worse
    for quantity in judgement.may_be_worse:
        old, new = before.stats.get(quantity.name), after.stats.get(quantity.name)
        if old is None or new is None:
            continue
        if quantity.name == VARIATION and varies_as_much(before, after):
            continue
        usual = judgement.limits.dead_of_activations
        if quantity.worse == "up" and new < usual and _may_rectify(after):
            continue
        yield from judge(quantity, old, new, judgement)


def output_change(before: TensorRecord | None, after: TensorRecord | None) -> LayerChange | None:
    """Return the change of the model's output if it is no longer finite, which no module need show."""
    if before is None or after is None or not (changes := tuple(_no_longer_finite(before, after))):
        return None
    return LayerChange("output", 0, None, "other", True, None, None, None, changes)


def _no_longer_finite(before: TensorRecord, after: TensorRecord) -> Iterator[Change]:
    broken_before = _number(before.stats.get("nan_count")) + _number(before.stats.get("inf_count"))
    broken = _number(after.stats.get("nan_count")) + _number(after.stats.get("inf_count"))
    if broken and not broken_before:
        yield Change(
            "finite_fraction",
            before.stats.get("finite_fraction"),
            after.stats.get("finite_fraction"),
            "error",
            f"{broken:.0f} values are no longer finite" if broken > 1 else "a value is no longer finite",
        )


def _differences(
    before: ModuleRecord | BlockRecord, after: ModuleRecord | BlockRecord, judgement: Judgement
) -> Iterator[Change]:
    """Yield the changes that are only different, in the order of the table."""
    shared = [name for name in after.stats if name in before.stats]
    for quantity in look_up(shared, judgement.stored).values():
        old, new = before.stats[quantity.name], after.stats[quantity.name]
        if quantity.compared and old is not None and new is not None:
            yield from _different(quantity, old, new, judgement)


def _may_rectify(entry: ModuleRecord | BlockRecord) -> bool:
    """Whether this is an activation function, or a module without weights, which may return what one made."""
    return isinstance(entry, ModuleRecord) and (
        entry.role == "activation" or "weight_norm" not in entry.stats
    )


def varies_as_much(before: ModuleRecord | BlockRecord, after: ModuleRecord | BlockRecord) -> bool:
    """Whether the samples differ by half as much as before or more, in the unit of the values.

    Then a smaller sample variation, which is relative to the values, only says that their mean has grown.
    """
    sizes = [
        _number(entry.stats.get("rms")) * _number(entry.stats.get(VARIATION)) for entry in (before, after)
    ]
    return sizes[0] > 0 and 2 * sizes[1] >= sizes[0]


def _dead_or_far(quantity: Quantity, old: float, new: float, judgement: Judgement) -> Iterator[Change]:
    """Yield a warning for what learning does not do: values far beyond the scales, or almost zero."""
    far, scales = judgement.limits.far, judgement.scales
    if quantity.unit == OF_THE_TENSOR and quantity.worse == "either" and old > 0:
        if new >= far * scales.largest:
            yield Change(quantity.name, old, new, "warning", _rises(quantity, old, new))
        elif new * far <= scales.smallest:
            yield Change(quantity.name, old, new, "warning", _falls(quantity, old, new))
    elif quantity.unit != SHARE and quantity.worse == "down" and old > 0 and new * far <= old:
        yield Change(quantity.name, old, new, "warning", _falls(quantity, old, new))


def _worse(quantity: Quantity, old: float, new: float, judgement: Judgement) -> Iterator[Change]:
    limits, scales = judgement.limits, judgement.scales

    def change(message: str) -> Change:
        return Change(quantity.name, old, new, "warning", message)

    if quantity.unit == OF_THE_TENSOR and scales.smallest <= new <= limits.of_scales * scales.largest:
        return
    if quantity.unit == SHARE:
        if quantity.worse == "up" and new - old >= limits.dead:
            rises = quantity.rises or f"{quantity.title} rose"
            yield change(f"{rises} from {format_percent(old)} to {format_percent(new)}")
        if quantity.worse in ("down", "either") and old and new <= limits.lost * old:
            yield change(_falls(quantity, old, new))
        if quantity.worse == "either" and old < 1 and 1 - new <= limits.lost * (1 - old):
            # The rest of the share, which belongs to the other side.
            yield change(_rises(quantity, 1 - old, 1 - new))
    elif quantity.worse == "down":
        if old and new <= limits.lost * old:
            yield change(_falls(quantity, old, new))
    elif quantity.worse != "none" and old > 0:
        if new >= limits.scale * old:
            yield change(_rises(quantity, old, new))
        elif quantity.worse == "either" and new * limits.scale <= old:
            yield change(_falls(quantity, old, new))


def _falls(quantity: Quantity, old: float, new: float) -> str:
    return f"{quantity.falls or f'{quantity.title} fell'} from {format_number(old)} to {format_number(new)}"


def _rises(quantity: Quantity, old: float, new: float) -> str:
    return f"{quantity.rises or f'{quantity.title} rose'} from {format_number(old)} to {format_number(new)}"


def _different(quantity: Quantity, old: float, new: float, judgement: Judgement) -> Iterator[Change]:
    """Yield a note if a share changed by the limit, or another number by that part of its larger value."""
    share = judgement.limits.share
    if quantity.unit == SHARE:
        moved = quantity.worse in ("none", "either") and abs(new - old) >= share
    else:
        moved = quantity.worse == "none" and abs(new - old) >= share * max(abs(old), abs(new)) > 0
    if moved:
        message = f"{quantity.name} {format_number(old)} → {format_number(new)}"
        yield Change(quantity.name, old, new, "note", message)


def _number(value: Value) -> float:
    return value or 0
