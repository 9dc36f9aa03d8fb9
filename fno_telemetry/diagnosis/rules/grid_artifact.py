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
    """The output has a pattern with a period of two points: a checkerboard, or stripes.

    Formula: the share of energy in the highest band along an axis, which contains 1/2 cycle per grid point,
    >= least and >= of_neighbours times the largest of the three bands below it; a warning when it also is
    >= of_baseline times that of the baseline, else a note.
    Default: least 0.02, of_neighbours 4 and of_baseline 4. Without a baseline a note only, because untrained
    networks with transposed convolutions have up to 80 times the neighbours and lose it during training.
    Only the output is judged: healthy transposed convolutions inside a network have 93 to 99 % of their
    energy at high frequencies.
    Wrong when: the target itself has such a pattern.
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
        times = f", {format_number(top / below)} times that of the bands below" if below else ""
        yield Symptom(
            severity="warning" if risen else "note",
            place=place,
            message=f"has a period-2 (checkerboard) pattern along axis {record.output.spatial_axes[number]}: "
            f"{format_percent(top)} of its energy{times}",
            evidence={"highest_band": top, "of_the_neighbours": below, "of_the_baseline": before},
            advice="Transposed convolutions are the usual cause: resize and convolve instead, or use kernels "
            "of twice the stride.",
        )
        return
