"""What a rule is: a generator function that reads a record and yields a symptom for each thing it finds.

    def quiet_layer(record, *, least_rms=1e-6):
        for site in module_sites(record):
            if site.value("rms") is not None and site.value("rms") < least_rms:
                yield Symptom(severity="warning", site=site, message="is quiet", evidence={...}, advice="...")

The thresholds are its keyword arguments, all of them numbers with a default; a TOML file may change them.
Its docstring is what `--explain` prints: formula, default, where that comes from, when the rule is wrong.
A rule whose first argument is called `series` gets all records of a series by ascending step, two or more.
One with a keyword argument `baseline` gets the record of the same network while it was healthy, or None.
A statistic that is None says nothing, so a rule says nothing of it either.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fno_telemetry.diagnosis.places import Place
from fno_telemetry.findings import Severity
from fno_telemetry.records import CaptureRecord, Value

Evidence = Mapping[str, Value | str]

Rule = Callable[..., Iterator["Symptom"]]

OF_VALUES = frozenset(
    {
        *("overflow_risk", "dead_layer", "dead_channels", "constant_channels", "input_independent"),
        *("constant_output", "spectral_branch_dead", "spectral_branch_weak", "local_branch_dead"),
        *("branch_cancellation", "identity_block", "exploding_activations", "vanishing_activations"),
        *("saturated_activation", "drifting_mean", "heavy_tail", "mode_truncation", "one_sided_spectrum"),
        *("high_frequency_loss", "grid_artifact"),
    }
)
"""The rules whose findings a broken layer before them can explain; those of weights are not among them."""

OF_GRADIENTS = frozenset(
    {"vanishing_gradient", "exploding_gradient", "branch_gradient_imbalance", "stalled_update"}
)
"""The rules about gradients, which a layer that passes nothing on, or too much, can explain as well."""


@dataclass(frozen=True, kw_only=True)
class Symptom:
    """What a rule found at one site; no site means the whole model.

    `explains` names the rules whose findings at this site and later in the forward would follow from it.
    `record` is the one in which a rule over a series found it, and is left out by all others.
    """

    severity: Severity
    message: str
    evidence: Evidence
    advice: str
    place: Place[Any] | None = None
    explains: frozenset[str] = field(default=frozenset())
    record: CaptureRecord | None = None


def takes_series(rule: Rule) -> bool:
    """Whether the rule reads a series of records instead of one."""
    return _argument_names(rule)[:1] == ["series"]


def takes_baseline(rule: Rule) -> bool:
    """Whether the rule judges by a healthy record where there is one."""
    return "baseline" in _argument_names(rule)


def default_thresholds(rule: Rule) -> dict[str, float]:
    """Return the rule's thresholds with their defaults."""
    parameters = inspect.signature(rule).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "baseline"
    }


def _argument_names(rule: Rule) -> Sequence[str]:
    return list(inspect.signature(rule).parameters)
