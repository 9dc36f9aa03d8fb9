"""`fno-telemetry diagnose`: what is wrong in reports, in which layer, by which numbers, and what to do."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry import report
from fno_telemetry.comparison import has_learned_since
from fno_telemetry.diagnosis import Skipped, explain_rule, find_skipped, read_rule_thresholds
from fno_telemetry_cli.options.judging import DiagnosisOptions
from fno_telemetry_cli.options.output import PageOptions, PrintingOptions
from fno_telemetry_cli.options.reading import ReadingOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.options.spelling import spell_options
from fno_telemetry_cli.reports_in import leave_out_resampled, refuse_two_runs, reports_in_all
from fno_telemetry_cli.showing.findings_view import (
    check_level,
    findings_document,
    findings_view,
    is_at_or_above,
    skipped_document,
    skipped_view,
)
from fno_telemetry_cli.showing.page_file import check_page_file, write_page_file
from fno_telemetry_cli.showing.tables import headline, shown
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_json, print_notes, print_results

EXIT_FOUND = 1
MOST_SHOWN = 5
"""Causes that are printed by default: they and what follows from them fit on a screen."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseRequest:
    """What `diagnose` was asked for."""

    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="REPORT|DIR|HISTORY…", help="Reports of one run, folders with them, or a history."
        ),
    ] = None
    judging: DiagnosisOptions
    reading: ReadingOptions
    page: PageOptions
    printing: PrintingOptions

    def __post_init__(self) -> None:
        check_level(self.judging.fail_on)
        if self.judging.explain is not None and self.paths:
            raise ft.OptionError(
                f"--explain {self.judging.explain} needs no report; leave out {self.paths[0]}"
            )
        if self.judging.explain is not None and self.page.html is not None:
            raise ft.OptionError(
                "--html is a page of reports, and --explain needs none; leave out one of them"
            )
        if self.judging.explain is None and not self.paths:
            raise ft.OptionError("diagnose needs a report, a folder of reports, a history, or --explain RULE")


@dataclass(frozen=True)
class _Reports:
    """The reports that are diagnosed, and notes about what was given besides.

    `found` are those of fields as they are, `resampled` those of the same fields at another resolution.
    """

    found: dict[Path, ft.CaptureRecord]
    resampled: dict[Path, ft.CaptureRecord]
    baseline: ft.CaptureRecord | None
    test: ft.CaptureRecord | None
    notes: list[str]

    @property
    def others(self) -> dict[str, ft.CaptureRecord | None]:
        """The records that the reports are compared with, as arguments of the library."""
        return {"baseline": self.baseline, "test": self.test}

    @property
    def all(self) -> dict[Path, ft.CaptureRecord]:
        """All reports that the library is given."""
        return self.found | self.resampled


@with_options(DiagnoseRequest)
def diagnose(request: DiagnoseRequest) -> None:
    """Print what is wrong, in which layer, which numbers show it, and what to do.

    Root causes come first, with their consequences grouped under them. Several reports are taken as one run,
    in the order of their steps.

    Example: fno-telemetry diagnose out

    With all notes: fno-telemetry diagnose out --all

    What a rule looks for: fno-telemetry diagnose --explain dead_layer
    """
    if request.judging.explain is not None:
        _explain(request.judging.explain, request.printing.as_json)
        return
    page = request.page.html
    check_page_file(page)
    with keep_stdout_clean():
        reports = _read(request)
        title, findings = _judge(request, reports)
    if not request.printing.quiet:
        print_notes(reports.notes, style="yellow")
    skipped = find_skipped(*reports.all.values(), **reports.others, rules=_rules(request))
    written = None
    if page is not None:
        written = write_page_file(
            page, list(reports.found.values()), findings, skipped=list(map(str, skipped))
        )
    _show(findings, skipped, title, request)
    if written is not None and not request.printing.quiet:
        print_notes([written])
    if is_at_or_above(findings, request.judging.fail_on):
        raise typer.Exit(EXIT_FOUND)


def _read(request: DiagnoseRequest) -> _Reports:
    baseline = ft.load_report(request.judging.baseline) if request.judging.baseline else None
    test = ft.load_report(request.judging.test) if request.judging.test else None
    given, notes = reports_in_all(request.paths or (), request.reading.stage, with_resampled=True)
    found = leave_out_resampled(given)
    resampled = {path: record for path, record in given.items() if path not in found}
    refuse_two_runs(found.items())
    without = [path.name for path, record in found.items() if record.step is None]
    if len(without) == len(found) > 1:
        notes.append("these reports have no step; they are ordered by name")
    elif without and len(found) > 1:
        notes.append(f"without a step, so not judged as a part of the series: {', '.join(without)}")
    if baseline is not None and len({record.input_digest for record in (baseline, *found.values())}) > 1:
        notes.append("the baseline used different samples; differences may come from the data")
    if baseline is not None and any(has_learned_since(baseline, record) for record in found.values()):
        notes.append(
            "the network learned most of what it knows after the baseline; only the inputs are compared"
        )
    if test is None:
        notes += _may_be_tests(found)
    if test is not None and test.input_digest in {record.input_digest for record in found.values()}:
        notes.append("the report of --test is of the same samples as the report itself")
    return _Reports(found, resampled, baseline, test, notes)


def _may_be_tests(found: Mapping[Path, ft.CaptureRecord]) -> Iterator[str]:
    """Yield a line about two reports of the same weights on different samples, of which one may be a test."""
    first: dict[object, Path] = {}
    for path, record in found.items():
        weights = (record.step, *((each.name, each.digest) for each in record.parameters))
        if not record.parameters or any(each.digest is None for each in record.parameters):
            continue
        other = first.setdefault(weights, path)
        if other != path and found[other].input_digest != record.input_digest:
            yield (
                f"{other} and {path} are of the same weights on different samples; if one of them is of test "
                f"samples: fno-telemetry diagnose {shlex.quote(str(other))} --test {shlex.quote(str(path))}"
            )
            return


def _judge(request: DiagnoseRequest, reports: _Reports) -> tuple[Text, Sequence[ft.Finding]]:
    """Return a title and the findings; ReportError, with the paths, when the reports cannot be judged."""
    thresholds = request.judging.thresholds
    limits = read_rule_thresholds(thresholds) if thresholds else None
    try:
        return _title(reports.found), ft.diagnose(
            *reports.all.values(),
            **reports.others,
            rules=_rules(request),
            thresholds=limits,
            reports=[str(path) for path in reports.all],
        )
    except ft.ReportError as error:
        names = ", ".join(map(str, request.paths or ()))
        raise ft.ReportError(f"{names}: cannot be diagnosed: {error}") from error


def _rules(request: DiagnoseRequest) -> list[str] | None:
    return request.judging.rule or None


def _show(
    findings: Sequence[ft.Finding], skipped: Sequence[Skipped], title: Text, request: DiagnoseRequest
) -> None:
    printing = request.printing
    if printing.as_json:
        documents = {"findings": findings_document(findings), "skipped": skipped_document(skipped)}
        print_json({"schema": "fno-telemetry-diagnose/1"} | documents)
        return
    if not printing.quiet:
        print_results(title)
    print_results(*findings_view(findings, printing.quiet, None if request.judging.show_all else MOST_SHOWN))
    if not printing.quiet:
        print_results(*skipped_view(skipped, request.judging.show_all))


def _title(found: dict[Path, ft.CaptureRecord]) -> Text:
    records = list(found.values())
    if len(records) == 1:
        return headline(records[0])
    in_histories = all(report.is_history(path.parent) for path in found)
    counted = f"{len(records)} {'records' if in_histories else 'reports'}"
    steps = sorted(record.step for record in records if record.step is not None)
    if len(steps) == len(records):
        kind = records[0].summary.get("step_kind") or "step"
        return shown(f"{counted}, {kind}s {steps[0]} to {steps[-1]}", "bold")
    names = list(found)
    return shown(f"{counted}, from {names[0]} to {names[-1]}", "bold")


def _explain(name: str, as_json: bool) -> None:
    explained = explain_rule(name)
    if as_json:
        document = {"rule": name, "text": explained.text, "thresholds": dict(explained.thresholds)}
        print_json({"schema": "fno-telemetry-rule/1"} | document)
        return
    lines = [shown(name, "bold"), Text(spell_options(explained.text))]
    if explained.thresholds:
        lines += [Text(), Text(f"[diagnose.{name}]", style="bold")]
        lines += [Text(f"{threshold} = {value}") for threshold, value in explained.thresholds.items()]
    print_results(*lines)
