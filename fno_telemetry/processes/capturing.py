"""A capture that several processes make together: each runs its share of the batches."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from fno_telemetry import report
from fno_telemetry.measuring.awaited_gradients import Gradients
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.measuring.record_builder import Run
from fno_telemetry.processes.agreement import agree_on_errors
from fno_telemetry.processes.group import ProcessGroup, find_group, is_distributed
from fno_telemetry.processes.merging import Merging
from fno_telemetry.processes.rows import Measured
from fno_telemetry.records import CaptureRecord


class SharedCapture:
    """What the processes of a capture do together; each of them has to do it at the same point."""

    def __init__(self) -> None:
        self._group = find_group()

    @property
    def group(self) -> ProcessGroup:
        """The processes."""
        return self._group

    def select_share(self, batches: Sequence[Any]) -> Sequence[Any]:
        """Return the batches of this process: whole ones, in order of the ranks; there may be none."""
        rank, count = self._group.rank, self._group.count
        return batches[len(batches) * rank // count : len(batches) * (rank + 1) // count]

    def build(
        self,
        collector: Collector,
        run: Run,
        batches: int,
        gradients: Gradients | None,
        build: Callable[[Run, Gradients | None], CaptureRecord],
    ) -> CaptureRecord:
        """Return the record of all processes in each of them; `run` is that of this one, of so many batches.

        The first process builds it.
        """
        collector.move_to_host()
        measured = Measured(
            collector, gradients, run.samples, run.batch_size, batches, run.called_outside, run.deviations
        )
        merged = Merging(self._group).merge(None, measured)
        record = None
        with agree_on_errors():
            if merged is not None:
                record = build(merged.describe(run), merged.gradients)
        return self._hand_out(record)

    def _hand_out(self, record: CaptureRecord | None) -> CaptureRecord:
        """Return the record of the first process in every one; the others give None."""
        if record is not None:
            self._group.hand_out(report.dumps(report.as_document(record)))
            return record
        return report.as_record(json.loads(self._group.hand_out(None)))


def share_capture(wanted: bool) -> SharedCapture | None:
    """Return what several processes do together; None where it is not wanted, or there is only one."""
    return SharedCapture() if wanted and is_distributed() else None
