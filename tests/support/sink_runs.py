"""A run of a sink from `open` to `close`."""

from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext, Sink


def write_records(sink: Sink, run: RunContext, *records: CaptureRecord, ok: bool = True) -> list[str]:
    """Write the records as one run; return the lines that say how to look at it."""
    sink.open(run)
    for record in records:
        sink.write(record)
    return sink.close(ok)
