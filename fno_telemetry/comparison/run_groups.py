"""Several runs of one experiment, each compared with the baseline: in how many of them a layer is worse."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fno_telemetry.comparison.learning import has_learned_since
from fno_telemetry.comparison.pairs import compare_pair
from fno_telemetry.comparison.results import Comparison, GroupFinding
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import CaptureRecord


def compare_runs(baseline: CaptureRecord, runs: Sequence[CaptureRecord], limits: Thresholds) -> Comparison:
    """Compare each run with the baseline; the layers shown are those of the worst run."""
    pairs = [compare_pair(baseline, run, limits, has_learned_since(baseline, run)) for run in runs]
    counted: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        worse_places = [
            (layer.place, change.statistic)
            for layer in (*pair.modules, *pair.blocks)
            for change in layer.changes
            if change.severity != "note"
        ]
        # Once a run, in execution order: a set would order equal counts by hash, differently each time.
        counted.update([*dict.fromkeys(worse_places)])
    findings = [GroupFinding(layer, name, count, len(runs)) for (layer, name), count in counted.items()]
    worst = max(pairs, key=lambda pair: SEVERITIES.index(pair.severity) if pair.severity else -1)
    worse = sum(pair.worse for pair in pairs)
    firsts = Counter(pair.first_diverging for pair in pairs if pair.first_diverging)
    often = ""
    if firsts:
        place, count = firsts.most_common(1)[0]
        often = f"; {place} is the first layer that differs in {count} of {len(runs)}"
    verdict = f"{worse} of {len(runs)} runs are worse than the baseline{often}"
    findings.sort(key=lambda finding: -finding.runs)
    return replace(worst, verdict=verdict, group=tuple(findings))
