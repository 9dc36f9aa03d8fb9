"""Which records are of the same fields at another resolution, and to which record each of them belongs."""

from collections.abc import Iterable, Mapping, Sequence

from fno_telemetry.records import CaptureRecord


def pair_resolutions(
    records: Sequence[CaptureRecord],
) -> tuple[list[CaptureRecord], Mapping[int, CaptureRecord]]:
    """Return the records of fields as they are, and by the id of each the one of its fields resampled.

    A resampled record without the one that it belongs to is judged by itself, and left out where that was
    captured anew since. Of several of one record, at different resolutions, the one with the largest
    difference counts.
    """
    own = [record for record in records if record.resolution is None]
    pairs: dict[int, CaptureRecord] = {}
    alone: list[CaptureRecord] = []
    for record in records:
        if record.resolution is None or is_of_earlier(record, own):
            continue
        first = next((one for one in own if _belongs(record, one)), None)
        if first is None:
            alone.append(record)
            pairs[id(record)] = record
        else:
            known = pairs.get(id(first))
            pairs[id(first)] = record if known is None else max(known, record, key=_difference)
    paired = {id(record) for record in own} | {id(record) for record in alone}
    return [record for record in records if id(record) in paired], pairs


def is_of_earlier(resampled: CaptureRecord, records: Iterable[CaptureRecord]) -> bool:
    """Return whether the record that it belongs to has been replaced: by one of other samples or weights.

    A record of fields as they are belongs to no other.
    """
    if resampled.resolution is None:
        return False
    own = [one for one in records if one.resolution is None and _place(one) == _place(resampled)]
    return bool(own) and not any(_belongs(resampled, one) for one in own)


def _place(record: CaptureRecord) -> tuple[str, str | None]:
    return record.label, record.stage


def _belongs(resampled: CaptureRecord, record: CaptureRecord) -> bool:
    found = resampled.resolution
    if found is None or found.of_digest is None or found.of_digest != record.input_digest:
        return False
    return _place(resampled) == _place(record) and _weights(resampled) == _weights(record)


def _weights(record: CaptureRecord) -> dict[str, tuple[tuple[int, ...], str | None]]:
    return {one.name: (one.shape, one.digest) for one in record.parameters}


def _difference(record: CaptureRecord) -> float:
    known = None if record.output is None else record.output.stats.get("resolution_difference")
    return known or 0.0
