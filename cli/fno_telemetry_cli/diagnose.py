"""`fno-telemetry diagnose`: what is wrong in reports, where, by which numbers, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry import diagnosis
from fno_telemetry_cli import options
from fno_telemetry_cli.findings_view import check_level, findings_document, findings_view, is_at_or_above
from fno_telemetry_cli.output import keep_stdout_clean, print_json, print_notes, print_results
from fno_telemetry_cli.reports_in import reports_in
from fno_telemetry_cli.tables import headline

EXIT_FOUND = 1


def diagnose(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="REPORT|DIR…", help="Reports, or folders of reports, of one run."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="The same network while it was healthy, to judge by."),
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with tables diagnose.RULE that set limits.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Apply this rule only. Repeatable.",
            autocompletion=options.names_of("rules"),
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Print a rule's formula, limits and where they come from, and stop.",
            autocompletion=options.names_of("rules"),
        ),
    ] = None,
    fail_on: Annotated[
        str, typer.Option(metavar="LEVEL", help="Exit 1 from here on: note, warning, error or never.")
    ] = "warning",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what is wrong: the layer, the evidence, the advice; what follows from a cause is folded under it.

    Several reports are one run over its steps.

    Example: fno-telemetry diagnose out/activation_report.json
    """
    check_level(fail_on)
    if explain is not None:
        if paths:
            raise ft.OptionError(f"--explain {explain} needs no report; leave out {paths[0]}")
        _explain(explain, as_json)
        return
    if not paths:
        raise ft.OptionError("diagnose needs a report, a folder of reports, or --explain RULE")
    with keep_stdout_clean():
        limits = diagnosis.read_rule_thresholds(thresholds) if thresholds else None
        healthy = ft.load_report(baseline) if baseline else None
        found: dict[Path, ft.CaptureRecord] = {}
        left_out: list[str] = []
        for path in paths:
            reports, refused = reports_in(path)
            found |= reports
            left_out += [f"left out: {reason}" for reason in refused]
        if len(found) > 1 and any(record.step is None for record in found.values()):
            left_out.append(
                "these reports have no step: they are taken by name, and nothing is said of steps"
            )
        if healthy is not None and len({_digest(record) for record in (healthy, *found.values())}) > 1:
            left_out.append("the baseline is of other samples: what differs may be theirs")
        try:
            title = _title(found)
            findings = ft.diagnose(
                *found.values(),
                baseline=healthy,
                rules=rule or None,
                thresholds=limits,
                reports=[str(path) for path in found],
            )
        except (AttributeError, LookupError, TypeError, ft.ReportError) as error:
            why = error if isinstance(error, ft.ReportError) else f"{type(error).__name__}: {error}"
            names = ", ".join(map(str, paths))
            raise ft.ReportError(f"{names}: cannot be diagnosed: {why}") from error
    if not quiet:
        print_notes(left_out, style="yellow")
    if as_json:
        document = {"schema": "fno-telemetry-diagnose/1", "findings": findings_document(findings)}
        print_json(document)
    else:
        if not quiet:
            print_results(title)
        print_results(*findings_view(findings, quiet))
    if is_at_or_above(findings, fail_on):
        raise typer.Exit(EXIT_FOUND)


def _title(found: dict[Path, ft.CaptureRecord]) -> Text:
    records = list(found.values())
    if len(records) == 1:
        return headline(records[0])
    steps = sorted(record.step for record in records if record.step is not None)
    if len(steps) == len(records):
        return Text(f"{len(records)} reports, of step {steps[0]} to {steps[-1]}", style="bold")
    names = list(found)
    return Text(f"{len(records)} reports, from {names[0]} to {names[-1]}", style="bold")


def _digest(record: ft.CaptureRecord) -> object:
    """Return what tells the samples of a record from others."""
    return (record.provenance.get("input") or {}).get("digest")


def _explain(name: str, as_json: bool) -> None:
    explained = diagnosis.explain_rule(name)
    if as_json:
        document = {"rule": name, "text": explained.text, "thresholds": dict(explained.thresholds)}
        print_json({"schema": "fno-telemetry-rule/1"} | document)
        return
    lines = [Text(name, style="bold"), Text(explained.text)]
    if explained.thresholds:
        lines += [Text(), Text(f"[diagnose.{name}]", style="bold")]
        lines += [Text(f"{threshold} = {value}") for threshold, value in explained.thresholds.items()]
    print_results(*lines)
