"""From records to findings: applies the rules, orders what they find by cause and by time."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from fno_telemetry import plugins
from fno_telemetry.comparison.series import sort_by_step
from fno_telemetry.diagnosis.causes import Found, order_by_cause
from fno_telemetry.diagnosis.contract import Rule, Symptom, takes_baseline, takes_series
from fno_telemetry.diagnosis.rule_thresholds import RuleThresholds, check_thresholds
from fno_telemetry.errors import PluginNotFound, ReportError
from fno_telemetry.findings import SEVERITIES, Finding
from fno_telemetry.records import CaptureRecord, FrozenMapping


def diagnose(
    *records: CaptureRecord,
    baseline: CaptureRecord | None = None,
    rules: Sequence[str] | None = None,
    thresholds: RuleThresholds | None = None,
    reports: Sequence[str] | None = None,
) -> tuple[Finding, ...]:
    """Say what is wrong in a record, or in a series of records of one run, causes first.

    Args:
        records: One record, or several over the steps of one run, in any order.
        baseline: A capture of the same network while it was healthy, which rules compare with.
        rules: Names of the rules to apply; all by default.
        thresholds: Rule -> threshold -> number; what is left out keeps its default.
        reports: What to call each record's report in its findings, in the order of the records.

    Raises:
        ReportError: no record; records of different networks, or of steps of different kinds; values that
            are not a report's.
        OptionError: an unknown threshold, or a value that is no number.
        PluginNotFound: an unknown rule.
    """
    if not records:
        raise ReportError("diagnose needs at least one report")
    named = dict(zip(map(id, records), reports, strict=True)) if reports is not None else {}
    limits = check_thresholds(thresholds or {})
    loaded, failures = _loaded(rules)
    series = sort_by_step(records)
    _refuse_strangers([*series, *([baseline] if baseline is not None else [])])
    if len({record.summary.get("step_kind") for record in records}) > 1:
        raise ReportError("steps of different kinds do not make one series")
    findings: list[Finding] = []
    known: dict[tuple[str, str | None], Finding] = {}  # of the record before, by rule and layer
    over_steps = list(_over_steps(series, loaded, limits))
    used: set[str] = set()
    for record in series:
        found = [one for one in over_steps if one.symptom.record is record]
        found += _applied(record, loaded, limits, baseline)
        of_record = list(_findings(found, record, named.get(id(record)), len(records) > 1, used))
        of_record = list(_folded_over_time(of_record, known))
        known = {(finding.rule, finding.layer): finding for finding in of_record}
        findings += of_record
    findings += failures
    over_steps_alone = {name for name, rule in loaded.items() if takes_series(rule)}
    return tuple(_with_ends(list(_causes_first(findings)), series, over_steps_alone))


def _refuse_strangers(records: Sequence[CaptureRecord]) -> None:
    """Raise ReportError where records have fewer layers in common than apart."""
    first = {module.place for module in records[0].modules}
    for record in records[1:]:
        places = {module.place for module in record.modules}
        if 2 * len(first & places) < len(first | places):
            raise ReportError(
                f"these are reports of different networks: {len(first & places)} layers are in both, "
                f"{len(first ^ places)} in one of them"
            )


def _loaded(names: Sequence[str] | None) -> tuple[dict[str, Rule], list[Finding]]:
    """Return the rules by name, and a note for each installed one that cannot be imported."""
    found: dict[str, Rule] = {}
    failures = []
    for name in names if names is not None else plugins.names("rules"):
        try:
            found[name] = plugins.load("rules", name)
        except PluginNotFound as error:
            if names is not None:
                raise
            failures.append(_failure(name, error))
    return found, failures


def _over_steps(
    series: Sequence[CaptureRecord], rules: Mapping[str, Rule], limits: RuleThresholds
) -> Iterator[Found]:
    if len(series) < 2 or any(record.step is None for record in series):
        return
    for rank, (name, rule) in enumerate(rules.items()):
        if takes_series(rule):
            yield from _found(name, rank, rule, series, dict(limits.get(name, {})))


def _applied(
    record: CaptureRecord,
    rules: Mapping[str, Rule],
    limits: RuleThresholds,
    baseline: CaptureRecord | None,
) -> list[Found]:
    found: list[Found] = []
    for rank, (name, rule) in enumerate(rules.items()):
        if takes_series(rule):
            continue
        arguments: dict[str, Any] = dict(limits.get(name, {}))
        if takes_baseline(rule):
            arguments["baseline"] = baseline
        found += _found(name, rank, rule, record, arguments)
    return found


def _found(name: str, rank: int, rule: Rule, of: Any, arguments: Mapping[str, Any]) -> list[Found]:
    try:
        return [Found(name, rank, symptom) for symptom in rule(of, **arguments)]
    except Exception as error:
        if name in plugins.RULES:
            if isinstance(error, AttributeError | LookupError | TypeError | ValueError):
                # The loader looks at the shape of a report, not at the type of every value in it.
                why = f"{type(error).__name__}: {error}"
                raise ReportError(f"its values are not a report's: {why} (rule {name})") from error
            raise
        # One broken package may not cost what the others say.
        failed = Symptom(severity="note", message=_why(error), evidence={}, advice=_ADVICE)
        return [Found(name, rank, failed)]


def _findings(
    found: Sequence[Found], record: CaptureRecord, report: str | None, several: bool, used: set[str]
) -> Iterator[Finding]:
    """Yield the findings of one record, each with an id that is not in `used` yet."""
    prefix = f"{record.label or report or 'report'}:" if several else ""
    ids: dict[int, str] = {}
    for one, cause in order_by_cause(found):
        symptom = one.symptom
        layer = symptom.place.name if symptom.place is not None else None
        name = f"{prefix}{one.rule}:{layer or 'model'}"
        number = 1
        while name in used:
            number += 1
            name = f"{prefix}{one.rule}:{layer or 'model'}:{number}"
        used.add(name)
        ids[id(one)] = name
        evidence = {key: value for key, value in symptom.evidence.items() if value is not None}
        yield Finding(
            id=name,
            rule=one.rule,
            severity=symptom.severity,
            layer=layer,
            step=record.step,
            report=report,
            message=symptom.message,
            evidence=FrozenMapping(evidence),
            advice=symptom.advice,
            follows_from=None if cause is None else ids[id(cause)],
        )


def _folded_over_time(
    findings: Sequence[Finding], before: Mapping[tuple[str, str | None], Finding]
) -> Iterator[Finding]:
    """Yield the findings; what the report before has at the same layer follows from that."""
    for finding in findings:
        earlier = before.get((finding.rule, finding.layer))
        if earlier is None:
            yield finding
        else:
            yield replace(finding, follows_from=earlier.follows_from or earlier.id)


def _causes_first(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield causes by severity, each followed by what follows from it, through other findings as well."""
    by_id = {finding.id: finding for finding in findings}
    groups: dict[str, list[Finding]] = {
        finding.id: [] for finding in findings if finding.follows_from is None
    }
    for finding in findings:
        if finding.follows_from is None:
            continue
        root = by_id[finding.follows_from]
        while root.follows_from is not None:
            root = by_id[root.follows_from]
        groups[root.id].append(replace(finding, follows_from=root.id))

    def worst(name: str) -> int:
        return max(SEVERITIES.index(finding.severity) for finding in (by_id[name], *groups[name]))

    for name in sorted(groups, key=lambda name: -worst(name)):
        yield by_id[name]
        yield from groups[name]


def _with_ends(
    findings: Sequence[Finding], series: Sequence[CaptureRecord], over_steps: Set[str]
) -> Iterator[Finding]:
    """Yield the findings; a cause that the last record of the series does not have says so."""
    last = series[-1].step
    if last is None or len({record.step for record in series}) < len(series):
        yield from findings
        return
    seen: dict[str, int] = {}
    for finding in findings:
        if finding.step is not None and finding.rule not in over_steps:
            same = finding.follows_from or finding.id
            seen[same] = max(finding.step, seen.get(same, finding.step))
    for finding in findings:
        end = seen.get(finding.id, last)
        gone = finding.follows_from is None and end < last
        yield replace(finding, message=f"{finding.message}; not seen after step {end}") if gone else finding


_ADVICE = "Report it to those who made the rule; the other rules are not affected."


def _why(error: BaseException) -> str:
    return f"could not be judged by this rule: {type(error).__name__}: {error}"


def _failure(name: str, error: BaseException) -> Finding:
    return Finding(
        id=f"{name}:model",
        rule=name,
        severity="note",
        layer=None,
        step=None,
        report=None,
        message=_why(error),
        evidence=FrozenMapping(),
        advice=_ADVICE,
    )
