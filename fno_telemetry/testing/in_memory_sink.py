"""A sink that keeps records in memory, for tests of what feeds sinks."""

from pathlib import Path

from fno_telemetry import keys
from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import NumbersByStep, RunContext


class InMemorySink:
    """Keeps every record that it is given, in order, over all runs that it is opened for.

    It keeps the contract of sinks but for one promise: memory does not survive a kill.
    """

    name = "in_memory"

    def __init__(self) -> None:
        self.records: list[CaptureRecord] = []
        self.run: RunContext | None = None  # the run that it is open for
        self._is_new = False

    def open(self, run: RunContext) -> None:
        """Remember the run."""
        self.run, self._is_new = run, False

    def write(self, record: CaptureRecord) -> None:
        """Keep the record; SinkUnavailable when the sink is not open."""
        if self.run is None:
            raise SinkUnavailable("This sink is not open: call open(run) first.")
        self.records.append(record)
        self._is_new = True

    def flush(self) -> None:
        """Do nothing: memory has what `write` returned from."""

    def close(self, ok: bool) -> list[str]:
        """Return where to look, once there is a record."""
        self.run = None
        is_new, self._is_new = self._is_new, False
        return [f"InMemorySink.records: {len(self.records)}"] if is_new else []

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the numbers of the records that this very sink keeps, whatever the folder."""
        found: dict[int | None, dict[str, int | float]] = {}
        for record in self.records:
            found.setdefault(record.step, {}).update(keys.numbers(record))
        return found
