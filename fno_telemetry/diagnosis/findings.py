"""From records to findings: applies the rules, sorts the symptoms by cause and groups findings over time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral

from fno_telemetry import plugins
from fno_telemetry.comparison.learning import has_learned_since, is_untrained
from fno_telemetry.comparison.trends import sort_by_step
from fno_telemetry.diagnosis.causes import sort_by_cause
from fno_telemetry.diagnosis.contract import Rule, Symptom, Topic, check_symptom
from fno_telemetry.diagnosis.installed_rules import load_rules
from fno_telemetry.diagnosis.needs import applies
from fno_telemetry.diagnosis.resolutions import pair_resolutions
from fno_telemetry.diagnosis.rule_thresholds import RuleThresholds, check_thresholds
from fno_telemetry.errors import ReportError
from fno_telemetry.findings import SEVERITIES, Cause, Finding, group_by_cause
from fno_telemetry.keys import VALIDATION
from fno_telemetry.records import CaptureRecord, FrozenMapping, Value, require_records, spell_step

_Symptoms = dict[Rule, list[Symptom]]


def diagnose(
    *records: CaptureRecord,
    baseline: CaptureRecord | None = None,
    test: CaptureRecord | None = None,
    rules: Sequence[str] | None = None,
    thresholds: RuleThresholds | None = None,
    reports: Sequence[str] | None = None,
) -> tuple[Finding, ...]:
    """Return what is wrong in a record, or in the records of one run over its steps, causes first.

    Args:
        records: One record, or several over the steps of one run, in any order. Those of a training and of
            its validations are two series, judged apart. One of the same fields at another resolution, as
            `capture_resampled` returns it, is no step of a run: it is compared with the record that it
            belongs to.
        baseline: A capture of the same network when it was healthy, with which rules compare. From an
            untrained one everything changes by learning: then only the inputs, the targets and what is
            known of the training are compared.
        test: A capture of the same weights on samples that the network was not trained on. It is compared
            with the record of its step, else with the last one.
        rules: Names of the rules to apply; all by default.
        thresholds: Rule -> threshold -> number; what is left out keeps its default.
        reports: The name of each record's report in its findings, in the order of the records.

    Raises:
        ReportError: no record; records of different networks, or with different kinds of steps; values that a
            report cannot have.
        OptionError: an argument that is no record; `rules` that are no list of names; an unknown threshold,
            or a value that is no number.
        PluginNotFound: an unknown rule, or a function that is installed as a rule but is none.
    """
    if not records:
        raise ReportError("`diagnose` needs at least one report")
    others = [other for other in (baseline, test) if other is not None]
    require_records("diagnose", [*records, *others])
    report_of = dict(zip(map(id, records), reports, strict=True)) if reports is not None else {}
    limits = check_thresholds(thresholds or {})
    loaded, failures = load_rules(rules)
    records_as_they_are, resampled = pair_resolutions(records)
    several = len(records_as_they_are) > 1
    judging = _Judging(loaded, limits, baseline, report_of, resampled, several)
    causes: list[Cause] = []
    for in_validation in (False, True):
        of_stage = [each for each in records_as_they_are if (each.stage == VALIDATION) is in_validation]
        series = _as_series(of_stage)
        if not series:
            continue
        _refuse_other_networks([*series, *others])
        # A test is one of the training, unless there are only validations.
        is_tested = not in_validation or len(series) == len(records_as_they_are)
        causes += _diagnose_series(series, test if is_tested else None, judging)
    causes += group_by_cause(_describe_failure(name, error) for name, error in failures.items())
    return tuple(_sort_causes(causes, {rule.name: rule.yields for rule in loaded}))


@dataclass(frozen=True)
class _Judging:
    """How each of several series is judged."""

    rules: Sequence[Rule]
    limits: RuleThresholds
    baseline: CaptureRecord | None
    report_of: Mapping[int, str]  # by id of a record
    resampled: Mapping[int, CaptureRecord]  # by id of the record that it belongs to
    several: bool  # records in all
    used: set[str] = field(default_factory=set)  # ids of findings


def _as_series(records: Sequence[CaptureRecord]) -> list[CaptureRecord]:
    """Return the records by their steps; ReportError where these are of different kinds."""
    placed = [record for record in records if record.step is not None]
    kinds = {str(record.summary.get("step_kind")) for record in placed}
    if len(kinds) > 1:
        spelled = ", ".join(sorted(kinds))
        raise ReportError(f"reports with steps of different kinds ({spelled}) cannot be one series")
    # A record without a step, such as that of a final file, has no place in the series: it comes last.
    return sort_by_step(placed) + [record for record in records if record.step is None]


def _diagnose_series(
    series: Sequence[CaptureRecord], test: CaptureRecord | None, judging: _Judging
) -> Iterator[Cause]:
    """Yield the causes in the records of one stage, in the order of their steps."""
    rules, limits, baseline = judging.rules, judging.limits, judging.baseline
    placed = [record for record in series if record.step is not None]
    findings: list[Finding] = []
    known: dict[tuple[str, str | None], Finding] = {}  # of the record before, by rule and layer
    over_steps = _apply_to_series(placed, rules, limits, baseline)
    tested = None if test is None else _find_tested(series, test)
    last_placed = placed[-1] if placed else series[-1]
    for record in series:
        symptoms = {
            rule: [symptom for symptom in over_steps[rule] if (symptom.record or last_placed) is record]
            if rule.takes_series
            else _apply(
                rule,
                record,
                limits,
                baseline,
                test if record is tested else None,
                judging.resampled.get(id(record)),
            )
            for rule in rules
        }
        report = judging.report_of.get(id(record))
        made = _make_findings(symptoms, record, report, judging.several, judging.used)
        of_record = list(_follow_earlier(list(made), known))
        known = {(finding.rule, finding.layer): finding for finding in of_record}
        findings += of_record
    yield from _judge_over_steps(group_by_cause(findings), placed or series, rules)


def assign_findings(
    records: Sequence[CaptureRecord], reports: Sequence[str], findings: Sequence[Finding]
) -> list[CaptureRecord]:
    """Return the records, each with the findings about it, in the same words and order.

    `reports` are the names of the records' reports that `diagnose` was given. A finding may follow from one
    in another record, by its id. What is about no report, such as a rule that cannot be loaded, is in the
    last.
    """
    of_report: dict[str, list[Finding]] = {name: [] for name in reports}
    for finding in findings:
        # A report need not name itself, and its path may be private.
        of_report[finding.report or reports[-1]].append(replace(finding, report=None))
    return [
        replace(record, findings=tuple(of_report[name]))
        for record, name in zip(records, reports, strict=True)
    ]


def _refuse_other_networks(records: Sequence[CaptureRecord]) -> None:
    """Raise ReportError where two records share less than half of their layers."""
    first = {module.place for module in records[0].modules}
    for record in records[1:]:
        places = {module.place for module in record.modules}
        if 2 * len(first & places) < len(first | places):
            raise ReportError(
                f"these are reports of different networks: {len(first & places)} layers are in both, "
                f"{len(first ^ places)} in one of them"
            )


def _find_tested(series: Sequence[CaptureRecord], test: CaptureRecord) -> CaptureRecord:
    """Return the record of the test's step, else the last one."""
    known = [record for record in series if record.step is not None and record.step == test.step]
    return known[-1] if known else series[-1]


def _apply_to_series(
    series: Sequence[CaptureRecord],
    rules: Sequence[Rule],
    limits: RuleThresholds,
    baseline: CaptureRecord | None,
) -> _Symptoms:
    """Return what the rules over a series find; nothing without two records or more."""
    found: _Symptoms = {}
    for rule in rules:
        if rule.takes_series:
            is_judged = len(series) >= 2 and applies(rule, series, baseline, None)
            arguments: dict[str, float | CaptureRecord | None] = dict(limits.get(rule.name, {}))
            if rule.takes_baseline:
                arguments["baseline"] = baseline
            found[rule] = _call(rule, series, arguments) if is_judged else []
    return found


def _apply(
    rule: Rule,
    record: CaptureRecord,
    limits: RuleThresholds,
    baseline: CaptureRecord | None,
    test: CaptureRecord | None,
    resampled: CaptureRecord | None,
) -> list[Symptom]:
    if not applies(rule, [record], baseline, test, resampled):
        return []
    arguments: dict[str, float | CaptureRecord | None] = dict(limits.get(rule.name, {}))
    if rule.takes_baseline:
        is_comparable = (
            baseline is None or rule.about in _KEPT_BY_LEARNING or not has_learned_since(baseline, record)
        )
        arguments["baseline"] = baseline if is_comparable else None
    if rule.takes_test:
        arguments["test"] = test
    if rule.takes_resampled:
        arguments["resampled"] = resampled
    return _call(rule, record, arguments)


def _call(
    rule: Rule,
    of: CaptureRecord | Sequence[CaptureRecord],
    arguments: Mapping[str, float | CaptureRecord | None],
) -> list[Symptom]:
    """Return the symptoms; one that says why where a rule of another package raises."""
    try:
        return [check_symptom(symptom) for symptom in rule(of, **arguments)]
    except Exception as error:
        if rule.name in plugins.RULES:
            if isinstance(error, AttributeError | LookupError | TypeError | ValueError):
                # The loader looks at the shape of a report, not at the type of every value in it.
                why = f"{type(error).__name__}: {error}"
                raise ReportError(
                    f"the report holds a value of the wrong type: {why} (rule {rule.name})"
                ) from error
            raise
        # A broken rule of one package must not cost the findings of the others.
        record = of if isinstance(of, CaptureRecord) else of[-1]
        return [
            Symptom(
                severity="note",
                message=_tell_failure(error),
                evidence={},
                advice=_ADVICE,
                record=record if rule.takes_series else None,
            )
        ]


def _make_findings(
    symptoms: Mapping[Rule, Sequence[Symptom]],
    record: CaptureRecord,
    report: str | None,
    several: bool,
    used: set[str],
) -> Iterator[Finding]:
    """Yield the findings of one record, each with an id that is not in `used` yet."""
    prefix = f"{record.label}:" if several else ""
    ids: dict[int, str] = {}
    for rule, symptom, cause in sort_by_cause(symptoms):
        layer = symptom.place.name if symptom.place is not None else None
        name = f"{prefix}{rule.name}:{layer or 'model'}"
        number = 1
        while name in used:
            number += 1
            name = f"{prefix}{rule.name}:{layer or 'model'}:{number}"
        used.add(name)
        ids[id(symptom)] = name
        evidence = {key: _as_python(value) for key, value in symptom.evidence.items() if value is not None}
        yield Finding(
            id=name,
            rule=rule.name,
            severity=symptom.severity,
            layer=layer,
            step=record.step,
            report=report,
            message=symptom.message,
            evidence=FrozenMapping(evidence),
            advice=symptom.advice,
            confirm=symptom.confirm,
            follows_from=None if cause is None else ids[id(cause)],
        )


def _as_python(value: Value | str) -> Value | str:
    """Return a NumPy number as a Python number, because JSON has no others."""
    if value is None or isinstance(value, str | int):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _follow_earlier(
    findings: Sequence[Finding], before: Mapping[tuple[str, str | None], Finding]
) -> Iterator[Finding]:
    """Yield the findings; one that the record before has at the same layer follows from that."""
    for finding in findings:
        earlier = before.get((finding.rule, finding.layer))
        yield finding if earlier is None else replace(finding, follows_from=earlier.id)


def _sort_causes(causes: Iterable[Cause], yields: Mapping[str, int]) -> Iterator[Finding]:
    """Yield causes by the highest severity among what follows from them, each with that after it.

    A cause has that severity too: what is worst about it may be what follows from it. Of equally severe ones,
    those whose rule yields come last.
    """

    def rank(cause: Cause) -> tuple[int, int]:
        rank = yields.get(cause.finding.rule, 0)
        # Growth that is unusual by itself says more than a change since the baseline.
        compared = "of_the_baseline" in cause.finding.evidence
        return -SEVERITIES.index(cause.worst), rank if compared else min(rank, 1)

    for cause in sorted(causes, key=rank):
        yield replace(cause.finding, severity=cause.worst)
        for consequence in cause.consequences:
            yield replace(consequence, follows_from=cause.finding.id)


def _judge_over_steps(
    causes: Sequence[Cause], series: Sequence[CaptureRecord], rules: Sequence[Rule]
) -> Iterator[Cause]:
    """Yield the causes as the whole run shows them: each with its end, and a zero start as a note."""
    last, first = series[-1], series[0]
    about = {rule.name: rule.about for rule in rules}
    of_series = {rule.name for rule in rules if rule.takes_series}
    if len(series) == 1:
        for cause in causes:
            zero_start = is_untrained(first) and cause.finding.evidence.get("weight_norm") == 0
            yield _as_notes(cause) if zero_start else cause
        return
    if last.step is None or len({record.step for record in series}) < len(series):
        yield from causes
        return
    seen: dict[tuple[str, str | None], int] = {}  # the last step, by rule and layer
    for cause in causes:
        for each in (cause.finding, *cause.consequences):
            key = (each.rule, each.layer)
            seen[key] = max(each.step if each.step is not None else last.step, seen.get(key, 0))
    for cause in causes:
        finding = cause.finding
        steps = [each.step for each in (finding, *cause.consequences) if each.rule not in of_series]
        end = max((step for step in steps if step is not None), default=last.step)
        # What rules over the series find is of the whole run: they say themselves whether it recovered.
        if end >= last.step or finding.rule in of_series:
            yield cause
            continue
        when = spell_step(end, last.summary.get("step_kind"))
        ended = replace(cause, finding=replace(finding, message=f"{finding.message}; not seen after {when}"))
        topic = about.get(finding.rule)
        comes_back = seen[finding.rule, finding.layer] > end
        starts = finding.step == first.step and topic in OF_STARTS and not comes_back
        misses = topic in OF_LEARNING or MISSED in finding.evidence
        yield _as_notes(ended) if starts or misses else ended


def _as_notes(cause: Cause) -> Cause:
    """Return the cause with all findings as notes: many networks start with zeros, or at a small scale."""
    notes = [replace(each, severity="note") for each in cause.consequences]
    return Cause(replace(cause.finding, severity="note"), notes)


_KEPT_BY_LEARNING: frozenset[Topic] = frozenset({"input", "target", "training"})
"""What rules are about that an untrained baseline can be compared in: learning does not change it."""

OF_STARTS: frozenset[Topic] = frozenset({"values", "weights", "gradients"})
"""What rules are about whose findings may be a deliberate start, such as a branch that starts at zero."""

OF_LEARNING: frozenset[Topic] = frozenset({"accuracy", "target"})
"""What rules are about that every training begins with: the target is not met yet."""

MISSED = "error_to_mean_predictor"
"""Evidence of a finding of any other rule that speaks only because the target is missed."""

_ADVICE = "The rule has an error: report it to the authors of the rule. All other rules were applied."


def _tell_failure(error: BaseException) -> str:
    return f"could not be judged by this rule: {type(error).__name__}: {error}"


def _describe_failure(name: str, error: BaseException) -> Finding:
    return Finding(
        id=f"{name}:model",
        rule=name,
        severity="note",
        layer=None,
        step=None,
        report=None,
        message=_tell_failure(error),
        evidence=FrozenMapping(),
        advice=_ADVICE,
    )
