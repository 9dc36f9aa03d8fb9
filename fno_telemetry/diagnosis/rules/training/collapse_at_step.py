"""Finds the step at which a run broke."""

from collections.abc import Iterator, Sequence
from typing import Any

from fno_telemetry.comparison.break_steps import find_break
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import (
    change_module,
    change_output,
    healthy_record,
    make_series,
)
from fno_telemetry.diagnosis.places import Place, block_places, tensor_places
from fno_telemetry.records import CaptureRecord


def _series(*rms: float) -> list[CaptureRecord]:
    """Return a run that begins to learn, and then has these rms in one layer."""
    untrained = change_output(healthy_record(), sample_variation=0.1)
    learned = [change_module(healthy_record(), "blocks.1.local", rms=value) for value in rms]
    return make_series(untrained, *learned)


@rule(
    about="steps",
    fires_on=lambda: _series(1.0, 30.0, 40.0),
    silent_on=lambda: _series(1.0, 30.0, 1.1),
)
def collapse_at_step(
    series: Sequence[CaptureRecord],
    *,
    scale: float = Thresholds.scale,
    lost: float = Thresholds.lost,
    dead: float = Thresholds.dead,
    far: float = Thresholds.far,
) -> Iterator[Symptom]:
    """From one step on, a run is worse than just before, and it does not recover.

    Formula: the break that `compare` finds over the series. From one report to the next, one of
        (1) the rms of a layer or the gain of a block changed by a factor of `scale` (10) or more;
        (2) a sample_variation, an update_ratio or the energy share of a branch fell to `lost` (0.1) times its
            earlier value or less;
        (3) the share of dead or constant channels rose by `dead` (0.2) or more; in an activation function,
            and in a module without weights, which may end with one, to 0.9 or more;
        (4) values are no longer finite;
        and the run had not recovered in the last report. In (1), an rms within the range of rms that the
        network had just before does not count. The finding names the first layer in execution order for
        which one of these holds, or its block.
        In (2), a sample_variation does not count where the samples differ by half as much as before or more
        in the unit of the values. Learning is not a break: from the first report on; as long as the output
        has learned more from each report to the next (its sample_variation rose by 10 %, or
        sample_variation · rms, with an rms of at most that of the input); and where the loss is known to fall
        by 10 %, only (4) counts, an rms that is a factor of `far` (100) or more beyond the range just before,
        and a sample_variation or update_ratio that fell to 1 / `far` of its earlier value. That is not so
        where the loss is known to rise by 10 %.
    Default: `scale` is 10, `lost` is 0.1, `dead` is 0.2 and `far` is 100, as in `compare`. They tell a step
        of healthy training from a collapse.
    False alarm when: the reports are so many steps apart that learning itself changes a layer as much.
    """
    if len(series) < 3:
        return
    found_break = find_break(series, Thresholds(scale=scale, lost=lost, dead=dead, far=far))
    if found_break is None:
        return
    record, broken = series[found_break[0]], found_break[1]
    places: list[Place[Any]] = [*block_places(record), *tensor_places(record)]
    by_name = {place.name: place for place in places}
    worse = [layer for layer in (*broken.modules, *broken.blocks) if layer.severity in ("warning", "error")]
    found = [(by_name[layer.place], layer) for layer in worse if layer.place in by_name]
    if not found:
        return
    place, layer = min(found, key=lambda pair: pair[0].position)
    broken_places = {broke.name for broke, _ in found}
    blocks = [
        block
        for block in block_places(record)
        if broken_places & {block.name, block.entry.name, *block.entry.spectral, *block.entry.local}
    ]
    began_inside = blocks and place.name in (
        *(blocks[0].name, blocks[0].entry.name),
        *(*blocks[0].entry.spectral, *blocks[0].entry.local),
    )
    first_block = f"; the first broken block is {blocks[0].name}" if blocks and not began_inside else ""
    inside = f"in {place.name}, " if began_inside else ""
    change = next(change for change in layer.changes if change.severity != "note")
    yield Symptom(
        severity="error",
        record=record,
        place=blocks[0] if began_inside else place,
        message=f"broke at {record.spelled_step}: {inside}{change.message}{first_block}",
        evidence={
            "step": record.step,
            "statistic": change.statistic,
            "before": change.before,
            "after": change.after,
            "first_block": blocks[0].name if blocks else None,
        },
        explains=Consequences(about=("values", "gradients")),
        advice="An optimizer step was probably too large, or the data of a batch were broken: go back to the "
        "checkpoint before this step, and check the learning rate, the data and the loss of the steps "
        "between.",
    )
