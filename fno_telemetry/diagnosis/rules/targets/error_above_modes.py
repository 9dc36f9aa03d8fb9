"""Finds errors at frequencies for which the spectral layers have no modes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.band_shares import share_above
from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import CaptureRecord, ModeEnergy


def _with_modes(*ratios: float, modes: int = 8) -> CaptureRecord:
    """Return the healthy record with so many modes of 32 points, and these ratios to the target's energy."""
    record = add_target(healthy_record(), ratios)
    sizes = (2 * modes, modes)
    energy = ModeEnergy(sizes=sizes, axis_shares=tuple((1 / size,) * size for size in sizes))
    modules = [
        replace(module, mode_energy=energy) if module.role == "spectral" else module
        for module in record.modules
    ]
    return replace(record, modules=tuple(modules))


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: _with_modes(0.95, 0.95, 0.95, 0.1),
    silent_on=lambda: _with_modes(0.95, 0.8, 0.95, 0.75),
)
def error_above_modes(
    record: CaptureRecord,
    *,
    noted: float = 0.5,
    of_error: float = 0.75,
    learned: float = 0.25,
    factor: float = 2.0,
    error: float = 0.25,
    of_target: float = 0.5,
    missed: float = 0.5,
    of_input: float = 0.5,
) -> Iterator[Symptom]:
    """Most of the error lies at frequencies that no spectral layer has modes for.

    Formula: let f be the highest frequency, along the axis with the fewest modes, of the spectral layer that
        reaches furthest: modes over grid points. Of the radial bands that end at f or below it and of those
        that begin at f or above it, let e be the energy of the error over that of the target, and its square
        root r; let s be the share of the upper bands in the energy of the error. One of
        (1) s >= `noted` (0.5), and r above f >= `factor` (2) times r below it, which is a note. It is a
            warning if s >= `of_error` (0.75), r below f <= `learned` (0.25), and relative_l2 is at least
            `error` (0.25): the network has learned what its modes reach;
        (2) the upper bands hold at least `of_target` (0.5) of the energy of the target without the mean, and
            `noted` (0.5) of that of the error, and r above f is >= `missed` (0.5), which is a warning.
        It is a note in both where the share of the energy above f is in the input less than `of_input` (0.5)
        times that in the target: what the input does not show, more modes would not find.
    Default: of trained healthy networks whose modes end at 1/8 cycle per grid point, the upper bands held up
        to 0.63 of the error, and 0.46 of the target. The local branches and the activations make some of the
        higher frequencies, so that a few more modes are not needed for every target.
    False alarm when: the frequencies above f are noise of the target, which no network can predict.
    """
    end, accuracy = output_place(record), record.accuracy
    bands = accuracy.bands if accuracy is not None else None
    reached = _find_highest_frequency(record)
    if end is None or accuracy is None or bands is None or reached is None or is_untrained(record):
        return
    edges = bands.band_edges
    below = [index for index, edge in enumerate(edges) if edge <= reached]
    above = [index for index in range(1, len(edges)) if edges[index - 1] >= reached]
    lower = _relative_error(bands.error, bands.target, below)
    upper = _relative_error(bands.error, bands.target, above)
    whole = math.fsum(bands.error)
    if lower is None or upper is None or whole <= 0:
        return
    share = math.fsum(bands.error[index] for index in above) / whole
    needed = math.fsum(bands.target[index] for index in above) / math.fsum(bands.target[1:])
    is_needed = needed >= of_target and upper >= missed
    if share < noted or (upper < factor * lower and not is_needed):
        return
    entered = share_above(record.input.spectrum if record.input is not None else None, reached)
    is_shown = entered is not None and entered >= of_input * needed
    total = accuracy.stats.get("relative_l2")
    is_known_below = share >= of_error and lower <= learned and total is not None and total >= error
    yield Symptom(
        severity="warning" if (is_needed or is_known_below) and is_shown else "note",
        place=end,
        message=f"misses what its spectral layers have no modes for: {format_percent(share)} of the error is "
        f"above {format_number(reached)} cycles per grid point, where the modes end; the relative error is "
        f"{format_number(upper)} there, and {format_number(lower)} below",
        evidence={
            "share_of_error": share,
            "share_of_target": needed,
            "share_of_input": entered,
            "relative_error_above": upper,
            "relative_error_below": lower,
            "modes_end_at": reached,
            "relative_l2": total,
        },
        advice="There are probably too few modes for the target: raise the number of modes of the spectral "
        "layers, or let the local branches see more than one point (a kernel of 3).",
        confirm="the relative error above should fall when the number of modes is doubled.",
    )


def _find_highest_frequency(record: CaptureRecord) -> float | None:
    """Return the frequency in cycles per grid point up to which the spectral layers have modes.

    The last axis of a transform of real fields is halved, and its modes are 0 to their number; along the
    others half of them are negative. None if the modes of a layer are not known, or end nowhere.
    """
    ends = []
    for module in record.modules:
        if module.role != "spectral":
            continue
        sizes = module.mode_energy.sizes if module.mode_energy is not None else ()
        points = [module.shape[axis] for axis in module.spatial_axes or ()]
        if not sizes or len(sizes) != len(points) or 0 in points:
            return None
        halves = [size / 2 for size in sizes[:-1]] + [sizes[-1]]
        ends.append(min(half / number for half, number in zip(halves, points, strict=True)))
    highest = max(ends, default=0.5)
    return highest if highest < 0.5 else None


def _relative_error(error: Sequence[float], target: Sequence[float], members: Sequence[int]) -> float | None:
    """Return the root of the energy of the error over that of the target in these bands."""
    energy = math.fsum(target[index] for index in members)
    return math.sqrt(math.fsum(error[index] for index in members) / energy) if energy > 0 else None
