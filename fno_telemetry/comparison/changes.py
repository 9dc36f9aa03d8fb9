"""What changed in one layer or block between two records, and whether that is worse."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fno_telemetry.comparison.distances import (
    population_stability_index,
    spectral_distance,
    wasserstein_decades,
)
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, Value, place_name

_SHARES = ("negative_fraction", "zero_fraction", "low_frequency_fraction", "high_frequency_fraction")
_BLOCK_SHARES = ("spectral_share", "branch_coherence")


@dataclass(frozen=True)
class Change:
    """One statistic that moved; `severity` is "warning" or "error" where that is worse, else "note"."""

    statistic: str
    before: Value
    after: Value
    severity: str
    message: str


@dataclass(frozen=True)
class LayerChange:
    """How one call of a layer, or one block, differs between two records."""

    name: str
    call: int
    item: str | None
    role: str
    differs: bool
    distance: float | None  # Wasserstein-1 between log10 |x|, in decades
    psi: float | None  # population stability index
    spectral_distance: float | None  # Wasserstein-1 between spectra, as a share of Nyquist
    changes: tuple[Change, ...]

    @property
    def severity(self) -> str | None:
        """The highest severity of its changes, None without changes."""
        found = [SEVERITIES.index(change.severity) for change in self.changes]
        return SEVERITIES[max(found)] if found else None

    @property
    def place(self) -> str:
        """Name, call and item in one: `fno_blocks@1`, `head[0]`."""
        return place_name(self.name, self.call, self.item)


@dataclass(frozen=True)
class Scales:
    """The smallest and the largest rms that a network has anywhere, its input included.

    An untrained layer comes to the scale of the data when it learns, be that by a factor of a hundred; what
    collapses leaves the scales that the network had.
    """

    smallest: float
    largest: float

    @classmethod
    def of(cls, record: CaptureRecord) -> "Scales":
        """Return the scales of a record; those of no number at all where it has none."""
        entries = [*record.modules, *([] if record.input is None else [record.input])]
        found = [rms for entry in entries if (rms := entry.stats.get("rms"))]
        return cls(min(found, default=0.0), max(found, default=math.inf))


def module_change(
    before: ModuleRecord, after: ModuleRecord, limits: Thresholds, scales: Scales
) -> LayerChange:
    """Compare two records of the same call of the same module; `scales` are those of the network before."""
    distance = wasserstein_decades(before.log_histogram, after.log_histogram)
    spectral = spectral_distance(before.spectrum, after.spectrum)
    changes = (
        *_worse_values(before, after, limits, scales),
        *_moved(before.stats, after.stats, _SHARES, limits),
    )
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


def block_change(before: BlockRecord, after: BlockRecord, limits: Thresholds) -> LayerChange:
    """Compare two records of the same block."""
    changes = (
        *_worse_block(before, after, limits),
        *_moved(before.stats, after.stats, _BLOCK_SHARES, limits),
    )
    return LayerChange(
        before.name, before.call, None, "block", bool(changes), None, None, None, tuple(changes)
    )


def _worse_values(
    before: ModuleRecord, after: ModuleRecord, limits: Thresholds, scales: Scales
) -> Iterator[Change]:
    broken_before = _number(before.stats.get("nan_count")) + _number(before.stats.get("inf_count"))
    broken = _number(after.stats.get("nan_count")) + _number(after.stats.get("inf_count"))
    if broken and not broken_before:
        yield Change(
            "finite_fraction",
            before.stats.get("finite_fraction"),
            after.stats.get("finite_fraction"),
            "error",
            f"{broken:.0f} values are no longer finite",
        )
    rms = after.stats.get("rms")
    if rms is not None and not scales.smallest <= rms <= scales.largest:
        yield from _scale("rms", before.stats.get("rms"), rms, limits)
    yield from _lost(
        "sample_variation", before.stats, after.stats, limits, "depends less on the input: sample variation"
    )
    for statistic, what in (("dead_channel_fraction", "dead"), ("constant_channel_fraction", "constant")):
        old, new = before.stats.get(statistic), after.stats.get(statistic)
        if old is not None and new is not None and new - old >= limits.dead:
            message = f"more {what} channels: {old:.0%} → {new:.0%}"
            yield Change(statistic, old, new, "warning", message)


def _worse_block(before: BlockRecord, after: BlockRecord, limits: Thresholds) -> Iterator[Change]:
    yield from _lost("update_ratio", before.stats, after.stats, limits, "moves its input less: update ratio")
    yield from _lost("spectral_share", before.stats, after.stats, limits, "spectral branch faded: share")
    old, new = before.stats.get("spectral_share"), after.stats.get("spectral_share")
    if old is not None and new is not None and 1 - new <= limits.lost * (1 - old) and old < 1:
        yield Change(
            "spectral_share", old, new, "warning", f"local branch faded: share {1 - old:.3g} → {1 - new:.3g}"
        )
    yield from _scale("gain", before.stats.get("gain"), after.stats.get("gain"), limits)


def _scale(statistic: str, old: Value, new: Value, limits: Thresholds) -> Iterator[Change]:
    if old is None or new is None or old <= 0:
        return
    if new >= limits.scale * old:
        yield Change(statistic, old, new, "warning", f"{statistic} grew: {old:.3g} → {new:.3g}")
    elif new * limits.scale <= old:
        yield Change(statistic, old, new, "warning", f"{statistic} shrank: {old:.3g} → {new:.3g}")


def _lost(
    statistic: str, before: Mapping[str, Value], after: Mapping[str, Value], limits: Thresholds, what: str
) -> Iterator[Change]:
    old, new = before.get(statistic), after.get(statistic)
    if old and new is not None and new <= limits.lost * old:
        yield Change(statistic, old, new, "warning", f"{what} {old:.3g} → {new:.3g}")


def _moved(
    before: Mapping[str, Value], after: Mapping[str, Value], shares: tuple[str, ...], limits: Thresholds
) -> Iterator[Change]:
    for statistic in shares:
        old, new = before.get(statistic), after.get(statistic)
        if old is not None and new is not None and abs(new - old) >= limits.share:
            yield Change(statistic, old, new, "note", f"{statistic} {old:.3g} → {new:.3g}")


def _number(value: Value) -> float:
    return value or 0
