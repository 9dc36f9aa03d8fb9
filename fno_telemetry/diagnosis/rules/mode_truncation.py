"""Spectral layers that do not see most of what comes in."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import counterpart, module_sites, others, stated
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
    layer's modes: a note from noted on; a warning from most on where the median of the other spectral layers
    is below noted, or when it is of_baseline above the baseline's.
    Default: 0.5, 0.85 and 0.25. Of white noise every layer with few modes cuts off nine tenths, and networks
    with 8 of 32 modes cut off half of piecewise constant fields and work well: the local branch takes it.
    Wrong when: the input is noise that one layer is to remove.
    """
    found = stated(module_sites(record), "truncated_energy_fraction")
    shares = [share for _, share in found]
    for index, (site, cut) in enumerate(found):
        rest = others(shares, index)
        alone = cut >= most and rest is not None and rest < noted
        known = counterpart(site, baseline, module_sites)
        before = known.value("truncated_energy_fraction") if known is not None else None
        risen = before is not None and cut >= before + of_baseline
        if cut >= noted or risen:
            yield Symptom(
                severity="warning" if alone or risen else "note",
                site=site,
                message=f"cuts off {percent(cut)} of what varies in its input",
                evidence={
                    "truncated_energy_fraction": cut,
                    "of_the_other_layers": rest,
                    "of_the_baseline": before,
                },
                advice="More modes, or a local branch that carries the high frequencies.",
            )
