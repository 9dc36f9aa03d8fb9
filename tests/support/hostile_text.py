"""Reports with texts that a terminal would obey, or a reader not see, in every place that can hold a text."""

import json
import unicodedata
from typing import Any

from fno_telemetry import report
from fno_telemetry.testing import example_record

# Escape sequences and other controls; direction, zero width and fillers; line ends and half a character.
SIGNS = "\x1b[2J\x1b]0;t\x07 \x9b1m \x85\x00\x7f \u202e\u2067\u061c \u200b\u2060\ufeff\u00ad \u3164\ufe0f"
SIGNS += " \u2028\r\n \ud83d"
EVIL = f"evil{SIGNS}fno-telemetry: all healthy"


def shows_only_what_is_seen(text: str) -> bool:
    """Whether a terminal shows each character where it stands; without the functions that are tested."""
    letters = set(text) - {"\n"}
    hidden = [each for each in letters if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    return not hidden and not letters & {"\u3164", "\ufe0f"} and "\nfno-telemetry: all" not in text


def make_evil(value: Any) -> Any:
    """Put the signs into every text that is no key and none of a few words."""
    if isinstance(value, dict):
        return {key: make_evil(part) for key, part in value.items()}
    if isinstance(value, list):
        return [make_evil(part) for part in value]
    if isinstance(value, str) and value not in WORDS:
        return f"{value}{EVIL}"
    return value


WORDS = {"x", "|z|", "step", "epoch", "note", "warning", "error", "fno-telemetry/1", "train"}
WORDS |= {"lifting", "spectral", "local", "block", "activation", "norm", "projection", "other"}


def make_evil_reports() -> list[dict[str, Any]]:
    """Return two reports with the signs in every text; the second is worse, and has a module more."""
    one = example_record.add_findings(example_record.example())
    other = example_record.with_stats(example_record.at_step(one, 2000), "lifter", rms=1e9, nan_count=3)
    documents = []
    for record in (one, other):
        document = make_evil(json.loads(report.dumps(report.as_document(record))))
        document["quantities"] = []
        document["provenance"]["input"] = {"digest": "a"}
        documents.append(document)
    documents[1]["modules"].append(documents[1]["modules"][0] | {"name": EVIL})
    return documents
