"""An output without structure."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Symptom
from fno_telemetry.diagnosis.sites import output_site
from fno_telemetry.diagnosis.wording import digits
from fno_telemetry.records import CaptureRecord


def constant_output(record: CaptureRecord, *, least_structure: float = 1e-8) -> Iterator[Symptom]:
    """Each field that comes out is one number.

    Formula: 1 - dc_fraction <= least_structure, the share of energy that is not in the fields' means; or
    constant_channel_fraction = 1.
    Default: 1e-8, an amplitude of 1e-4 beside the mean. Untrained networks had 1e-5 and more.
    Wrong when: constant fields are what the network is to return.
    """
    site = output_site(record)
    if site is None or site.value("rms") in (None, 0):
        return
    dc, constant = site.value("dc_fraction"), site.value("constant_channel_fraction")
    flat = dc is not None and 1 - dc <= least_structure
    if not flat and constant != 1:
        return
    mean = site.value("mean")
    yield Symptom(
        severity="error",
        site=site,
        message="is one number per field" + ("" if mean is None else f" (mean {digits(mean)})"),
        evidence={"dc_fraction": dc, "constant_channel_fraction": constant, "std": site.value("std")},
        advice="Look for the first layer that lost its structure; then at the rate and the loss.",
    )
