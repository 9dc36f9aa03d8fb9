"""Finds checkerboards and stripes in the output."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_output, healthy_record
from fno_telemetry.diagnosis.places import output_place
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    fires_on=lambda: change_output(healthy_record(), bands=(0.5, 0.2, 0.05, 0.01, 0.01, 0.02, 0.21)),
    silent_on=lambda: change_output(healthy_record(), bands=(0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1)),
)
def grid_artifact(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    least: float = 0.02,
    of_neighbours: float = 4,
    of_baseline: float = 4,
) -> Iterator[Symptom]:
    """The output has a pattern with a period of two grid points: a checkerboard, or stripes.

    Formula: let t be the share of energy in the highest frequency band along a spatial axis, which contains
        1/2 cycle per grid point. Both
        (1) t >= `least` (0.02); and
        (2) t >= `of_neighbours` (4) times the largest share of the three bands below it.
        This is a warning if t also is >= `of_baseline` (4) times its value in the baseline, otherwise a note.
    Default: `least` is 0.02, `of_neighbours` is 4 and `of_baseline` is 4. Without a baseline, the finding is
        only a note: in untrained networks with transposed convolutions, t is up to 80 times the share of the
        bands below it, and this pattern disappears during training. Only the output is checked, because
        transposed convolutions inside healthy networks have 93 to 99 % of their energy at high frequencies.
    False alarm when: the target itself has such a pattern.
    """
    place = output_place(record)
    if place is None or record.output is None or record.output.spectrum is None:
        return
    known = baseline.output.spectrum if baseline is not None and baseline.output is not None else None
    for number, bands in enumerate(record.output.spectrum.axis_bands):
        if len(bands) < 5:
            continue
        top, below = bands[-1], max(bands[-4:-1])
        if top < least or top < of_neighbours * below:
            continue
        there = known is not None and number < len(known.axis_bands)
        before = known.axis_bands[number][-1] if known is not None and there else None
        risen = before is not None and top >= of_baseline * before
        times = ""
        if below:
            times = f", {format_number(top / below)} times the largest share of the three bands below it"
        yield Symptom(
            severity="warning" if risen else "note",
            place=place,
            message=f"has a period-2 (checkerboard) pattern along axis {record.output.spatial_axes[number]}: "
            f"the highest frequency band has {format_percent(top)} of the energy{times}",
            evidence={"highest_band": top, "of_the_neighbours": below, "of_the_baseline": before},
            advice="Transposed convolutions are the usual cause: replace them by interpolation followed by a "
            "convolution, or use kernels whose size is twice the stride.",
        )
        return
