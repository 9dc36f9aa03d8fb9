"""Spectral layers that do not see most of what comes in."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import counterpart, module_sites, stated
from fno_telemetry.diagnosis.wording import percent
from fno_telemetry.records import CaptureRecord


def mode_truncation(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    noted: float = 0.5,
    most: float = 0.85,
    of_baseline: float = 0.25,
) -> Iterator[Symptom]:
    """A spectral layer cuts off most of the energy of its input.

    Formula: truncated_energy_fraction, the share of the input's energy without means that lies outside of the
    layer's modes: a note from noted on, a warning from most on, or when it is of_baseline above the
    baseline's.
    Default: 0.5 and 0.85. Networks with 8 of 32 modes cut off up to 0.58 of piecewise constant fields and
    work well, because the local branch takes the rest.
    Wrong when: the input is noise that the network is to remove.
    """
    for site, cut in stated(module_sites(record), "truncated_energy_fraction"):
        known = counterpart(site, baseline, module_sites)
        before = known.value("truncated_energy_fraction") if known is not None else None
        risen = before is not None and cut >= before + of_baseline
        if cut >= noted or risen:
            yield Symptom(
                severity="warning" if cut >= most or risen else "note",
                site=site,
                message=f"cuts off {percent(cut)} of what varies in its input",
                evidence={"truncated_energy_fraction": cut, "of_the_baseline": before},
                advice="More modes, or a local branch that carries the high frequencies.",
            )
