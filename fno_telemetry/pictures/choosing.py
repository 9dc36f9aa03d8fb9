"""Which pictures a record, a series of records and a pair have, in the order in which to look at them."""

from collections.abc import Iterable, Sequence

from fno_telemetry.findings import Finding, group_by_cause
from fno_telemetry.pictures.accuracy import target_and_output
from fno_telemetry.pictures.depth import branch_balance, channels_and_samples, size_and_gain
from fno_telemetry.pictures.differences import Names, size_difference, spectrum_difference
from fno_telemetry.pictures.picture import Picture, Pictures
from fno_telemetry.pictures.rows import entries_by_place, layer_rows
from fno_telemetry.pictures.spectra import mode_energy, spectrum_by_layer, spectrum_of, values_by_layer
from fno_telemetry.pictures.steps import losses, spectrum_by_step, statistic_by_step, values_by_step
from fno_telemetry.records import CaptureRecord

STATISTICS = (
    "rms",
    "low_frequency_fraction",
    "spectral_share",
    "gain",
    "sample_variation",
    "dead_channel_fraction",
    "grad_norm",
    "update_to_weight",
)
"""The numbers that are shown over steps; each that is there has a picture."""


def pictures_of(record: CaptureRecord) -> Pictures:
    """Return the pictures of one record; one whose numbers it lacks is left out."""
    makers = (
        size_and_gain,
        branch_balance,
        channels_and_samples,
        spectrum_by_layer,
        values_by_layer,
        mode_energy,
        target_and_output,
    )
    return Pictures([make(record) for make in makers])


def pictures_of_series(
    records: Sequence[CaptureRecord], findings: Iterable[Finding] | None = None, place: str | None = None
) -> Pictures:
    """Return the pictures of records over their steps, which are to be in order.

    `findings` are those of a diagnosis of the series; without them, those that the records have are marked.
    `place` is the layer that is shown by frequency and by value: by default the one of the first error or
    warning, else the output.
    """
    given = None if findings is None else tuple(findings)
    where = place or _find_place(records, given)
    shown: list[Picture | None] = [losses(records, given)]
    # Where no channel ever died, a map of zeros would say nothing.
    never = (
        () if any(_has(record, "dead_channel_fraction") for record in records) else ("dead_channel_fraction",)
    )
    shown += [statistic_by_step(records, name, given) for name in STATISTICS if name not in never]
    if where is not None:
        shown += [spectrum_by_step(records, where), values_by_step(records, where)]
    return Pictures(shown)


def pictures_of_pair(
    before: CaptureRecord, after: CaptureRecord, names: Names = ("before", "after")
) -> Pictures:
    """Return the pictures of two records next to each other."""
    return Pictures([size_difference(before, after, names), spectrum_difference(before, after, names)])


def _has(record: CaptureRecord, statistic: str) -> bool:
    return any(row.stats.get(statistic) for row in layer_rows(record))


def _find_place(records: Sequence[CaptureRecord], findings: Sequence[Finding] | None) -> str | None:
    """Return the layer of the first error or warning that has a spectrum at both ends, else the output."""
    if not records:
        return None
    # Of a long run, a dashboard keeps the spectra of all layers for the last record alone.
    ends = [entries_by_place(record) for record in (records[0], records[-1])]
    entries = {place for place in ends[1] if all(spectrum_of(end.get(place)) is not None for end in ends)}
    given = (
        [finding for record in records for finding in record.findings or ()] if findings is None else findings
    )
    causes = [cause.finding for cause in group_by_cause(given) if cause.finding.severity != "note"]
    found = (finding.layer for finding in causes if finding.layer in entries and finding.layer != "input")
    return next(found, "output" if "output" in entries else None)
