"""A record as Markdown for TensorBoard's Text tab: a table of layers and blocks, and a list of findings."""

import re
from collections.abc import Iterable, Mapping

from fno_telemetry import findings, keys
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, Value

MOST_CAUSES = 50
"""The list of findings is no longer than this; the first causes in a record explain most."""

NO_STEP = "step: unknown"
"""How the table of a record without a step begins."""

# Short titles: where the page is narrow it breaks words anywhere.
_MODULE_COLUMNS = {
    "rms": "rms",
    "abs p50": "abs_p50",
    "abs p99": "abs_p99",
    "low freq.": "low_frequency_fraction",
    "sample var.": "sample_variation",
    "dead ch.": "dead_channel_fraction",
}
_BLOCK_COLUMNS = {
    "spectral/local": "spectral_local_ratio",
    "spectral share": "spectral_share",
    "cosine": "branch_cosine",
    "update": "update_ratio",
    "gain": "gain",
}
_SUMMARY = ("architecture", "weights", "n_samples", "n_modules", "n_parameters", "device", "dtype")
# Whatever could have a meaning in Markdown or HTML.
_MARKS = re.compile(r"[^\w\s.,:=+/-]|_")


def table(record: CaptureRecord) -> str:
    """Return the record as Markdown: a summary line, layers in execution order, blocks, warnings."""
    parts = [_summary_line(record)]
    modules = [
        [
            _name(module),
            module.role,
            "x".join(map(str, module.shape)),
            *_numbers(module.stats, _MODULE_COLUMNS),
        ]
        for module in keys.modules_in_order(record)
    ]
    parts.append(_rows(["layer", "role", "shape", *_MODULE_COLUMNS], modules))
    if record.blocks:
        blocks = [[_name(block), *_numbers(block.stats, _BLOCK_COLUMNS)] for block in record.blocks]
        parts.append(_rows(["block", *_BLOCK_COLUMNS], blocks))
    if record.warnings:
        parts.append("\n".join(f"- warning: {escape(warning)}" for warning in record.warnings))
    return "\n\n".join(parts)


def findings_list(record: CaptureRecord, most: int = MOST_CAUSES) -> str | None:
    """Return the findings as Markdown, each cause with its consequences below it; None if not diagnosed.

    A list, because TensorBoard breaks words in narrow columns.
    """
    if record.findings is None:
        return None
    causes = findings.causes(record)
    if not causes:
        return findings.NOTHING
    lines = []
    for cause in causes[:most]:
        found = cause.finding
        layer, message = found.layer or findings.MODEL, findings.shorten(found.message)
        lines.append(f"- **{escape(found.severity)}: {escape(layer)}** {escape(f'{message} ({found.rule})')}")
        below = (findings.evidence(found), findings.shorten(found.advice), cause.what_follows)
        lines += [f"    - {escape(line)}" for line in below if line]
    if len(causes) > most:
        lines += ["", f"{len(causes) - most} more are in the report."]
    return "\n".join(lines)


def escape(text: object) -> str:
    """Return one line of Markdown that shows just this text: no character in it has a meaning of its own."""
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", " ".join(str(text).split()))


def _summary_line(record: CaptureRecord) -> str:
    step = NO_STEP if record.step is None else f"step: {record.step}"
    known = [f"{name}: {escape(record.summary[name])}" for name in _SUMMARY if record.summary.get(name)]
    return ", ".join([step, *known])


def _name(record: ModuleRecord | BlockRecord) -> str:
    return record.place if record.name else keys.ROOT + record.place


def _numbers(stats: Mapping[str, Value], columns: Mapping[str, str]) -> list[str]:
    values = [stats.get(statistic) for statistic in columns.values()]
    return [f"{value:.3g}" if keys.is_defined(value) else "-" for value in values]


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
