"""`fno-telemetry merge`: joins the reports of captures that ran apart into one series, in every sink."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry import sinks
from fno_telemetry_cli.capturing.folder_claims import claim_reports
from fno_telemetry_cli.capturing.target import Target
from fno_telemetry_cli.interrupts import finish_first
from fno_telemetry_cli.options.output import PrintingOptions, ReportOptions, WandbOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.reports_in import refuse_two_runs, reports_in_all
from fno_telemetry_cli.showing.captured_reports import CapturedReports, show_captured_reports
from fno_telemetry_cli.showing.terminal import keep_stdout_clean
from fno_telemetry_cli.sink_choice import choose_sinks

EXIT_SINK_FAILED = 3

Found = list[tuple[Path, ft.CaptureRecord]]


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What `merge` was asked for."""

    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Folders with the reports of one run, such as those of capture --shard."
        ),
    ]
    destination: ReportOptions
    wandb: WandbOptions
    printing: PrintingOptions

    @property
    def target(self) -> Target:
        """Where the series goes; OptionError when it cannot be written there."""
        given = self.destination
        folder = given.output
        if folder is None and len(self.paths) == 1 and self.paths[0].is_dir():
            folder = self.paths[0]
        if folder is None:
            raise ft.OptionError("--output DIR is required: the folder for the series")
        return Target.of(folder, given.output_json_name, given.experiment, writes=True)


@with_options(MergeRequest)
def merge(request: MergeRequest) -> None:
    """Join the reports of captures that ran apart into one series, for every sink.

    Every sink gets the records in ascending order of their steps. Without --output the reports stay where
    they are.

    Example: fno-telemetry merge out --sink tensorboard

    Several folders into one: fno-telemetry merge before after --output merged
    """
    with keep_stdout_clean():
        target = request.target
        found, notes = reports_in_all(request.paths)
        series = _sort(list(found.items()))
        captured = _write(request, target, series, tuple(notes))
    show_captured_reports(captured, request.printing)
    if captured.failed_in_part:
        raise typer.Exit(EXIT_SINK_FAILED)


def _sort(found: Found) -> Found:
    """Return the reports in order of step, those without one last; ReportError for several series."""
    refuse_two_runs(found)
    first, one = found[0]
    labels: dict[str, Path] = {}
    for path, record in found:
        kinds = one.summary.get("step_kind"), record.summary.get("step_kind")
        if None not in kinds and kinds[0] != kinds[1]:
            raise ft.ReportError(
                f"{first} counts in {kinds[0]}s and {path} in {kinds[1]}s; one series cannot have both"
            )
        digests = [each.facts_about("input").get("digest") for each in (one, record)]
        if None not in digests and digests[0] != digests[1]:
            raise ft.ReportError(
                f"{first} and {path} were captured on different input, so they are no series; compare them"
            )
        other = labels.setdefault(record.label, path)
        if other != path:
            raise ft.ReportError(f"{other} and {path} are both of {record.label}; leave one of them out")
    return sorted(found, key=lambda item: (item[1].step is None, item[1].step or 0, item[1].label))


def _write(request: MergeRequest, target: Target, series: Found, notes: tuple[str, ...]) -> CapturedReports:
    paths = target.reports(record.label for _, record in series)
    stay = {path.resolve() for path, _ in series} == {path.resolve() for path in paths}
    given = request.destination
    always = () if stay else ("json",)
    typed = [name for name in given.sink or () if not stay or name != "json"]
    chosen = choose_sinks(typed, request.wandb, given.sink_option or (), always, detail=given.detail)
    fan_out = ft.FanOut(chosen, required=None if stay else "json")
    with contextlib.ExitStack() as stack:
        if not stay:
            names = [path.name for path in paths]
            stack.enter_context(claim_reports(target.folder, names, force=given.force))
            if not given.force:
                target.refuse_existing(paths)
        fan_out.open(sinks.RunContext(target.folder, target.name, target.experiment, series=True))
        try:
            for _, record in series:
                with finish_first():
                    fan_out.write(record)
        except BaseException:
            fan_out.close(ok=False)
            raise
        with finish_first():
            outcome = fan_out.close(ok=True)
    reports = dict(zip(paths, (record for _, record in series), strict=True))
    return CapturedReports(reports, outcome, (), None, notes, (), schema="fno-telemetry-merge/1")
