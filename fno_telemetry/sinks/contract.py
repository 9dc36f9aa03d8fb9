"""What a sink is: somewhere that finished records go. Sinks get numbers, never tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fno_telemetry.records import CaptureRecord


@dataclass(frozen=True)
class RunContext:
    """What a sink may know of the run that it is opened for."""

    folder: Path
    report_name: str = "activation_report.json"
    experiment: str = ""
    redact: bool = False  # whether no path may leave this machine
    origin: str = ""  # what tells this run from others with the same experiment name, where that is needed
    series: bool = False  # whether several checkpoints are captured, each into a report of its own


class Sink(Protocol):
    """Third parties add theirs by the entry point `fno_telemetry.sinks`, a class called without arguments."""

    name: str

    def open(self, run: RunContext) -> None:
        """Get ready; SinkUnavailable says what to do when that cannot be."""
        ...

    def write(self, record: CaptureRecord) -> None:
        """Take one record."""
        ...

    def flush(self) -> None:
        """Make sure that what was written survives a kill."""
        ...

    def close(self, ok: bool) -> list[str]:
        """Let go of everything that this sink opened itself; return lines that say how to look at it."""
        ...
