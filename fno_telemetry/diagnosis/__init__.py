"""Finds what is wrong: rules read a record, or a series of records, and findings are sorted by cause.

What the author of a rule needs is here: `rule` makes one, `Symptom` is what it yields, the functions for
places read a record. `fno_telemetry.diagnosis.example_records` makes the two examples that a rule brings.
"""

from fno_telemetry.diagnosis.contract import (
    TOPICS,
    Consequences,
    Evidence,
    Example,
    Rule,
    Symptom,
    Topic,
    rule,
)
from fno_telemetry.diagnosis.places import (
    Place,
    block_places,
    find_counterpart,
    input_place,
    median_of_others,
    medians_before,
    medians_downstream,
    module_places,
    output_place,
    select_defined,
    tensor_places,
)
from fno_telemetry.diagnosis.wording import format_number, format_percent, join_names

__all__ = [
    "TOPICS",
    "Consequences",
    "Evidence",
    "Example",
    "Place",
    "Rule",
    "Symptom",
    "Topic",
    "block_places",
    "find_counterpart",
    "format_number",
    "format_percent",
    "input_place",
    "join_names",
    "median_of_others",
    "medians_before",
    "medians_downstream",
    "module_places",
    "output_place",
    "rule",
    "select_defined",
    "tensor_places",
]
