"""The records that are written when numbers of a training are no longer finite."""

from collections import deque
from pathlib import Path

from fno_telemetry.records import CaptureRecord, TensorRecord
from fno_telemetry.sinks.history_file import HistoryFile


class Dump:
    """Keeps the last records of due steps, and writes them with that of the forward that went wrong."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._kept: deque[CaptureRecord] = deque(maxlen=number)

    def keep(self, record: CaptureRecord) -> None:
        """Keep a record instead of the oldest one."""
        self._kept.append(record)

    def write(self, record: CaptureRecord) -> Path:
        """Write the kept records and this one into a file of their own, and return its path."""
        return self._write([*(kept for kept in self._kept if kept.step != record.step), record], record.step)

    def write_kept(self, step: int) -> Path | None:
        """Write the kept records alone, named after this step, and return the path; None without any."""
        return self._write(list(self._kept), step) if self._kept else None

    def _write(self, records: list[CaptureRecord], step: int | None) -> Path:
        path = self._folder / f"nonfinite.step{step}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = HistoryFile(path)
        for record in records:
            sink.write(record)
        sink.close(ok=True)
        return path


def describe_origin(record: CaptureRecord) -> str:
    """Return in a sentence where values that are not finite came from first."""
    start = f"the output of the model at step {record.step} is not finite"
    if record.input is not None and _count_wrong(record.input):
        return f"{start}, and neither is its input"
    for module in sorted(record.modules, key=lambda module: module.order):
        if wrong := _count_wrong(module):
            of = module.stats.get("count")
            return f"{start}: the first values that are not come from {module.place!r}, {wrong} of {of}"
    return f"{start}, while those of its modules are"


def _count_wrong(record: TensorRecord) -> int:
    return int(record.stats.get("nan_count") or 0) + int(record.stats.get("inf_count") or 0)
