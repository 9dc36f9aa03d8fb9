"""Captures one checkpoint after the other into the sinks; one that fails does not cost the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fno_telemetry as ft
from fno_telemetry_cli.checkpoint_series import Failure, Listed
from fno_telemetry_cli.options import Source
from fno_telemetry_cli.preparing import InputBatches, prepare
from fno_telemetry_cli.redaction import redacted
from fno_telemetry_cli.running import captured
from fno_telemetry_cli.tables import some


@dataclass(frozen=True)
class Job:
    """One capture: the model, and where it is one of several what is known of its checkpoint."""

    source: Source
    listed: Listed | None = None


@dataclass
class Captures:
    """How to capture, and what became of it so far."""

    provenance: Mapping[str, Any]
    layers: Sequence[str]
    exclude: Sequence[str]
    strict: bool
    redacted_paths: Sequence[Path | None] | None  # None: nothing is redacted
    quiet: bool
    diagnose: bool = False
    records: list[ft.CaptureRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], given: InputBatches, sinks: ft.FanOut) -> None:
        """Capture all; TelemetryError where there is one only and it fails, or every one of several does."""
        for number, job in enumerate(jobs, 1):
            try:
                record = self._record(job, given, f"({number} of {len(jobs)})")
            except ft.TelemetryError as error:
                if job.listed is None:
                    raise
                self.failures.append(Failure(job.listed.path, str(error)))
                continue
            if self.strict:
                _refuse_unfired(record)
            if self.diagnose:
                record = replace(record, findings=ft.diagnose(record))
            sinks.write(record)
            self.records.append(record)
        if not self.records:
            raise ft.CheckpointError(f"none of the checkpoints could be captured: {self.failures[0]}")

    def _record(self, job: Job, given: InputBatches, place: str) -> ft.CaptureRecord:
        record = captured(
            prepare(job.source, given),
            provenance=self.provenance,
            layers=self.layers,
            exclude=self.exclude,
            doing="capturing" if job.listed is None else f"{job.listed.label} {place}",
            quiet=self.quiet,
        )
        if job.listed is not None and record.label != job.listed.label:
            raise ft.CheckpointError(
                f"{job.listed.path}: was {job.listed.label} and is now {record.label}; capture it again"
            )
        return record if self.redacted_paths is None else redacted(record, self.redacted_paths)


def _refuse_unfired(record: ft.CaptureRecord) -> None:
    if record.not_fired:
        names = some([entry["name"] for entry in record.not_fired])
        reason = record.not_fired[0]["reason"]
        raise ft.MapError(f"--strict: {names} did not fire: {reason}; leave --strict out to accept that")
