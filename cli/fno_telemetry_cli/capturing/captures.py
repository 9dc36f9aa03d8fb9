"""Captures one checkpoint after the other into the sinks; one that fails does not cost the others."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fno_telemetry as ft
from fno_telemetry import diagnosis, processes, records, report
from fno_telemetry_cli import launched
from fno_telemetry_cli.capturing.checkpoint_series import Listed
from fno_telemetry_cli.capturing.input_batches import InputBatches
from fno_telemetry_cli.capturing.preparing import Prepared, prepare
from fno_telemetry_cli.capturing.redaction import redact, redact_findings
from fno_telemetry_cli.capturing.running import Resampled, capture_record, errors_in_one_line
from fno_telemetry_cli.capturing.target import Target
from fno_telemetry_cli.failures import Failure
from fno_telemetry_cli.interrupts import finish_first
from fno_telemetry_cli.options.model import Source
from fno_telemetry_cli.showing.tables import format_count, some
from fno_telemetry_cli.showing.terminal import print_notes


@dataclass(frozen=True)
class Job:
    """One capture: the model, and its place in the series if it is one of several checkpoints."""

    source: Source
    listed: Listed | None = None


@dataclass
class Captures:
    """How to capture, and the records and failures so far."""

    provenance: Mapping[str, Any]
    layers: Sequence[str]
    exclude: Sequence[str]
    budget: str
    strict: bool
    redacted_paths: Sequence[Path | None] | None  # None: nothing is redacted
    quiet: bool
    name_report: Callable[[ft.CaptureRecord], str]
    diagnose: bool = False
    also_at: float | None = None  # the factor to another resolution
    records: list[ft.CaptureRecord] = field(default_factory=list)
    resampled: dict[str, ft.CaptureRecord] = field(default_factory=dict)  # by the path of the report
    failures: list[Failure] = field(default_factory=list)
    findings: tuple[ft.Finding, ...] | None = None
    _plan: "ft.MeasurementPlan | None" = None

    def run(self, jobs: Sequence[Job], given: InputBatches, sinks: ft.FanOut) -> None:
        """Capture all; TelemetryError if the only one fails, or every one of several does.

        When diagnosing, dashboards get the records at the end, since a break is known only then. Until then
        each report is on disk with what was found in it alone.
        """
        if not self.diagnose:
            self._capture(jobs, given, sinks)
            return
        try:
            self._capture(jobs, given, sinks)
        except KeyboardInterrupt:
            with finish_first(was_interrupted=True):
                self._write_diagnosed(sinks)
        with finish_first():
            self._write_diagnosed(sinks)

    def _write_diagnosed(self, sinks: ft.FanOut) -> None:
        """Diagnose all records as one run, and give each to the sinks with what was found at it."""
        if not self.records:
            return
        names = [self.name_report(record) for record in self.records]
        others = self.resampled
        self.findings = self._diagnose(*self.records, *others.values(), reports=[*names, *others])
        self.records = diagnosis.assign_findings(self.records, names, self.findings)
        for record in self.records:
            sinks.write(record)

    def _diagnose(
        self, *records: ft.CaptureRecord, reports: Sequence[str] | None = None
    ) -> tuple[ft.Finding, ...]:
        found = ft.diagnose(*records, reports=reports)
        return found if self.redacted_paths is None else redact_findings(found, self.redacted_paths)

    def _capture(self, jobs: Sequence[Job], given: InputBatches, sinks: ft.FanOut) -> None:
        for number, job in enumerate(jobs, 1):
            try:
                place = f"({number} of {len(jobs)})"
                record, prepared, plan = self._record(job, given, place)
            except ft.TelemetryError as error:
                if job.listed is None:
                    raise
                self.failures.append(Failure.of(job.listed.path, error))
                continue
            if self.strict:
                _refuse_unfired(record)  # the same in all processes
            if self.also_at is not None:
                record = self._capture_resampled(record, prepared, plan, job, sinks)
            with processes.agree_on_errors(), finish_first():
                self._write(record, sinks)
                self.records.append(record)
        if not self.records:
            raise ft.CheckpointError(f"none of the checkpoints could be captured: {self.failures[0]}")

    def _write(self, record: ft.CaptureRecord, sinks: ft.FanOut) -> None:
        if self.diagnose:
            sinks.keep(replace(record, findings=self._diagnose(record)))
        else:
            sinks.write(record)

    def _capture_resampled(
        self,
        record: ft.CaptureRecord,
        prepared: Prepared,
        plan: "ft.MeasurementPlan | None",
        job: Job,
        sinks: ft.FanOut,
    ) -> ft.CaptureRecord:
        """Write the report at the other resolution; return the record, which then names that.

        A model that cannot take another size costs the first report nothing: that is on disk before.
        """
        factor = self.also_at or 1.0
        with processes.agree_on_errors(), finish_first():
            sinks.keep(record)
        path = Path(self.name_report(record))
        other = Target.resampled(path, factor)
        resampled = Resampled(factor, record, path.name)
        try:
            found = self._capture_planned(prepared, job, f"at {factor:g} times", plan, resampled)
            if self.redacted_paths is not None:
                found = redact(found, self.redacted_paths)
            with processes.agree_on_errors(), finish_first():
                if launched.is_first():
                    report.write(found, other)
        except ft.TelemetryError as error:
            self.failures.append(Failure.of(other, error))
            return record
        except KeyboardInterrupt:
            with finish_first(was_interrupted=True):
                self._write(record, sinks)
                self.records.append(record)
            raise
        self.resampled[str(other)] = found
        return name_resampled(record, factor, other.name)

    def _record(
        self, job: Job, given: InputBatches, place: str
    ) -> "tuple[ft.CaptureRecord, Prepared, ft.MeasurementPlan | None]":
        with processes.agree_on_errors():
            prepared = prepare(job.source, given)
            needs_plan = job.listed is not None or self.also_at is not None
            plan = self._find_plan(prepared) if needs_plan else None
        record = self._capture_planned(prepared, job, place, plan)
        if plan is not None and record.provenance["deviations"]:
            # This checkpoint runs otherwise than the one that the plan was made of.
            self._plan = None
            plan = self._find_plan(prepared)
            record = self._capture_planned(prepared, job, place, plan)
        if job.listed is not None and record.label != job.listed.label:
            raise ft.CheckpointError(
                f"{job.listed.path}: was {job.listed.label} and is now {record.label}; capture it again"
            )
        if self.redacted_paths is not None:
            record = redact(record, self.redacted_paths)
        return record, prepared, plan

    def _capture_planned(
        self,
        prepared: Prepared,
        job: Job,
        place: str,
        plan: "ft.MeasurementPlan | None",
        resampled: Resampled | None = None,
    ) -> ft.CaptureRecord:
        return capture_record(
            prepared,
            provenance=self.provenance,
            plan=plan,
            layers=self.layers,
            exclude=self.exclude,
            budget=self.budget,
            doing="capturing" if job.listed is None else f"{job.listed.label} {place}",
            quiet=self.quiet,
            resampled=resampled,
        )

    def _find_plan(self, prepared: Prepared) -> "ft.MeasurementPlan":
        """Return the plan of the checkpoints before, or a new one where it does not fit."""
        if self._plan is None or self._plan.explain_misfit(prepared.model) is not None:
            with errors_in_one_line(prepared):
                self._plan = prepared.make_plan()
        return self._plan


@contextlib.contextmanager
def open_sinks(sinks: ft.FanOut, run: ft.RunContext, captures: Captures) -> Iterator[None]:
    """Open the sinks before a model runs, so that a missing one is known at once; close them on an error."""
    sinks.open(run)
    try:
        yield
    except KeyboardInterrupt:
        # What is finished is whole, and stays.
        with contextlib.suppress(KeyboardInterrupt), finish_first(was_interrupted=True):
            sinks.close(ok=bool(captures.records))
        if captures.records:
            done = ", ".join(record.label for record in captures.records)
            print_notes([f"{format_count(len(captures.records), 'report')} finished before: {done}"])
        raise
    except BaseException:
        sinks.close(ok=False)
        raise


def name_resampled(record: ft.CaptureRecord, factor: float, name: str) -> ft.CaptureRecord:
    """Return the record with the report of the same fields at another resolution named in it."""
    named = records.freeze_mapping({"factor": factor, "report": name})
    provenance = {**record.provenance, "also_at": named}
    return replace(record, provenance=records.FrozenMapping(provenance))


def _refuse_unfired(record: ft.CaptureRecord) -> None:
    if record.not_fired:
        names = some([entry["name"] for entry in record.not_fired])
        reason = record.not_fired[0]["reason"]
        raise ft.MapError(f"--strict: {names} did not fire: {reason}; to accept that, leave out --strict")
