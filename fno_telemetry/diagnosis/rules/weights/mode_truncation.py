"""Finds spectral layers that cut off most of their input."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import find_counterpart, median_of_others, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord


@rule(
    about="values",
    yields=2,
    fires_on=lambda: change_module(healthy_record(), "blocks.1.spectral", truncated_energy_fraction=0.6),
    silent_on=lambda: change_module(healthy_record(), "blocks.1.spectral", truncated_energy_fraction=0.4),
)
def mode_truncation(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    noted: float = 0.5,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """A spectral layer cuts off most of the energy of its input, or much more than in the baseline.

    Formula: let c be truncated_energy_fraction, the share of the input's energy outside the modes of the
        layer (the mean of each field is subtracted first). One of
        (1) c >= `noted` (0.5), which is a note;
        (2) if the baseline contains the layer: c - (c in the baseline) >= `of_baseline` (0.25), which is a
            warning. In this rule, `of_baseline` is a difference, not a factor.
    Default: `noted` is 0.5 and `of_baseline` is 0.25. Without a baseline, the finding is only a note, because
        c depends on the data as much as on the network: networks with few modes cut off 90 % of the energy of
        noise or of point sources, and fit smooth targets well all the same. Where a target is known,
        `error_above_modes` tells whether it needs more modes.
    False alarm when: the input is rough and the target smooth, or the local branch carries the remaining
        frequencies.
    """
    found = select_defined(module_places(record), "truncated_energy_fraction")
    shares = [share for _, share in found]
    for index, (place, cut) in enumerate(found):
        rest = median_of_others(shares, index, high=True)
        known = find_counterpart(place, baseline, module_places)
        before = known.value("truncated_energy_fraction") if known is not None else None
        risen = before is not None and cut >= before + of_baseline
        if cut >= noted or risen:
            expected = (
                f"expected: less than {format_percent(noted)}"
                if before is None
                else f"in the baseline: {format_percent(before)}"
            )
            yield Symptom(
                severity="warning" if risen else "note",
                place=place,
                message=f"cuts off {format_percent(cut)} of the energy of its input ({expected})",
                evidence={
                    "truncated_energy_fraction": cut,
                    "of_the_other_layers": rest,
                    "of_the_baseline": before,
                },
                advice="There are probably too few modes for this input: use more modes, or a local branch "
                "that carries the high frequencies.",
            )
