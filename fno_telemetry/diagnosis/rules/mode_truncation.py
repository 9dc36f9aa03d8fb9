"""Spectral layers that do not see most of what comes in."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.places import counterpart, module_places, others, select_defined
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def mode_truncation(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    noted: float = 0.5,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """A spectral layer cuts off most of the energy of its input.

    Formula: truncated_energy_fraction, the share of the input's energy without means that lies outside of the
    layer's modes, >= noted: a note; of_baseline above the baseline's: a warning.
    Default: 0.5 and 0.25. A note only, because it is the data's as much as the network's: networks with few
    modes cut off nine tenths of noise and of point sources, and fit smooth targets well all the same.
    Wrong when: the input is rough and the target smooth, or the local branch carries the rest.
    """
    found = select_defined(module_places(record), "truncated_energy_fraction")
    shares = [share for _, share in found]
    for index, (place, cut) in enumerate(found):
        rest = others(shares, index)
        known = counterpart(place, baseline, module_places)
        before = known.value("truncated_energy_fraction") if known is not None else None
        risen = before is not None and cut >= before + of_baseline
        if cut >= noted or risen:
            yield Symptom(
                severity="warning" if risen else "note",
                place=place,
                message=f"cuts off {percent(cut)} of what varies in its input",
                evidence={
                    "truncated_energy_fraction": cut,
                    "of_the_other_layers": rest,
                    "of_the_baseline": before,
                },
                advice="More modes, or a local branch that carries the high frequencies.",
            )
