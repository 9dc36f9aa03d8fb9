"""The thresholds of rules: their defaults, and those that a TOML file sets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fno_telemetry import plugins
from fno_telemetry.comparison.thresholds import read_threshold_tables
from fno_telemetry.diagnosis.installed_rules import load_rule
from fno_telemetry.errors import OptionError
from fno_telemetry.wording import hint_at_names

RuleThresholds = Mapping[str, Mapping[str, float]]
"""Rule -> threshold -> number."""


@dataclass(frozen=True)
class RuleExplanation:
    """The documentation of a rule, and its thresholds with their defaults."""

    name: str
    text: str
    thresholds: Mapping[str, float]


def explain_rule(name: str) -> RuleExplanation:
    """Return a rule's formula, its defaults and its false alarms; PluginNotFound for an unknown rule."""
    rule = load_rule(name)
    return RuleExplanation(name, rule.text, rule.thresholds)


def read_rule_thresholds(path: str | Path) -> RuleThresholds:
    """Read the tables `[diagnose.RULE]` of a TOML file; OptionError in one line where it cannot be used."""
    table = read_threshold_tables(path).get("diagnose", {})
    if not isinstance(table, dict):
        raise OptionError(f"`thresholds` {path}: [diagnose] must be a table of tables")
    try:
        return check_thresholds(table)
    except OptionError as error:
        raise OptionError(f"`thresholds` {path}: {error}") from error


def check_thresholds(thresholds: RuleThresholds) -> RuleThresholds:
    """Return the thresholds; OptionError names an unknown rule or threshold, or a value that is no number."""
    for name, limits in thresholds.items():
        if name not in plugins.names("rules"):
            raise OptionError(f"no rule is called {name!r}. {hint_at_names(name, plugins.names('rules'))}")
        if not isinstance(limits, Mapping):
            raise OptionError(f"[diagnose.{name}] must be a table")
        known = load_rule(name).thresholds
        for threshold, value in limits.items():
            if threshold not in known:
                raise OptionError(
                    f"rule {name} has no threshold {threshold!r}. {hint_at_names(threshold, known)}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise OptionError(f"{name}.{threshold} = {value!r}: a number was expected")
            if not math.isfinite(value) or (known[threshold] >= 0 > value):
                raise OptionError(f"{name}.{threshold} = {value!r}: a finite number, 0 or more, was expected")
    return thresholds
