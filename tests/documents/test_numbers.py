"""Numbers that the documents and the code both hold are the same, however often they are said."""

import importlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import log10
from typing import Any

import pytest

import fno_telemetry as ft
from support.documents import DOCUMENTS, ROOT, document_name


@dataclass(frozen=True)
class Said:
    """A constant and the phrase that quotes it, whose groups are numbers; `quoted` says how it is written."""

    constant: str
    phrase: str
    quoted: Callable[[Any], float] = float


QUOTED = (
    Said("statistics.histograms:MOST_BINS", r"(?:at most|histograms of) ([\d,]+) bins"),
    Said("statistics.histograms:LOG_EDGES", r"([\d,]+) bins over log10", lambda edges: len(edges) - 1),
    Said("statistics.frequency_grid:LOW_CUTOFF", r"at most (1/\d+), over|at or below (1/\d+) cycle"),
    Said("statistics.frequency_grid:HIGH_CUTOFF", r"the same above (1/\d+)"),
    Said("statistics.frequency_bands:BANDS_PER_CYCLE", r"along each axis, 1/(\d+) wide"),
    Said("statistics.channels:THRESHOLD", r"(?:space|range) is at most (\S+) of"),
    Said("statistics.channels:DORMANT", r"at most ([\d.]+) of the mean over all channels"),
    Said("statistics.channels:MOST_LISTED", r"of (?:each of )?up to (\d+) channels"),
    Said("statistics.effective_rank:MOST_CHANNELS", r"more than (\d+) channels it is null"),
    Said("statistics.effective_rank:FEWEST_POSITIONS", r"but at least (\d+) and at most"),
    Said("statistics.effective_rank:MOST_POSITIONS", r"but at least \d+ and at most (\d+), spread"),
    Said("statistics.weights:DEAD_LIMIT", r"energy is at most (\S+) of"),
    Said("statistics.spectrum:NO_ENERGY", r"below (1e-\d+) of the total"),
    Said("statistics.sketch:BINS", r"one window of (\d+\^\d+) bins"),
    Said(
        "statistics.sketch:RELATIVE_ERROR",
        r"within ([\d.]+) % of the true",
        lambda error: round(100 * error, 1),
    ),
    Said("session:MEMORY_LIMIT", r"kept up to (\d+) GiB", lambda limit: limit / 2**30),
    Said("records:SCHEMA", r"`fno-telemetry/(\d+)`"),
    Said("comparison.trends:_STRONG", r"Kendall's tau(?: \[\d\])? of ([\d.]+)"),
    Said("comparison.distances:_SMALLEST_SHARE", r"shares below 10⁻(\S) count", lambda share: -log10(share)),
    Said("findings:MOST_NAMED", r"the first (\d+) by name"),
    Said("sinks.tensorboard.markdown:MOST_CAUSES", r"lists up to (\d+) root causes"),
    Said("sinks.wandb.tables:MOST_ROWS", r"at most the last ([\d,]+)"),
    Said("sinks.overview:MOST_NUMBERS", r"at most (\d+) numbers"),
    Said("sinks.overview:MOST_LAYERS", r"more than (\d+) layers, as many"),
    Said("sinks.tensorboard.summaries:MOST_CHARTS", r"at most (\d+) however|of up to (\d+) layers"),
    Said("sinks.tensorboard.one_run:MOST_TABLE_ROWS", r"more than (\d+) layers those"),
    Said("sinks.wandb.rows:MOST_KEYS", r"([\d,]+) keys, below"),
    Said("sinks.wandb.workspace:MOST_PANELS", r"([\d,]+) panels|at most ([\d,]+); beyond"),
    Said("sinks.wandb.starting:FLUSH_SECONDS", r"flushed every ([\d.]+) s"),
)


def number(text: str) -> float:
    """Return what `10,000`, `1/8`, `2^16` and `1e-6` stand for."""
    text = text.replace(",", "")
    if "/" in text:
        above, below = text.split("/")
        return float(above) / float(below)
    if "^" in text:
        base, exponent = text.split("^")
        return float(base) ** float(exponent)
    return float(text.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))


@pytest.mark.parametrize("said", QUOTED, ids=lambda said: said.constant)
def test_a_number_is_said_as_the_code_has_it(said: Said) -> None:
    module, _, name = said.constant.partition(":")
    expected = said.quoted(getattr(importlib.import_module(f"fno_telemetry.{module}"), name))
    found = {
        (document_name(path), next(filter(None, match.groups())))
        for path in DOCUMENTS
        for match in re.finditer(said.phrase, re.sub(r"\s+", " ", path.read_text(encoding="utf-8")))
    }
    assert found, "no document says it any more: remove it from the table, or mend the phrase"
    for document, text in found:
        assert number(text) == expected, document


def test_the_limits_of_compare_are_documented_with_their_defaults() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE))
    assert {name: float(value) for name, value in table.items()} == asdict(ft.Thresholds())


def test_every_schema_that_a_document_names_is_one_that_the_code_writes() -> None:
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("fno_telemetry", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    written = set(re.findall(r"fno-telemetry-\w+/\d+", code))
    for path in DOCUMENTS:
        prose = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert set(re.findall(r"fno-telemetry-\w+/\d+", prose)) <= written
