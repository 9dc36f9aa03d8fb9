"""Turns the arguments in the library's messages, `layers`, into the options of the command, --layers."""

import ast
import re
from collections.abc import Mapping
from functools import cache

import typer

from fno_telemetry_cli.options.choosing import LayerOptions
from fno_telemetry_cli.options.judging import ComparisonOptions, DiagnosisOptions
from fno_telemetry_cli.options.measuring import MeasuringOptions
from fno_telemetry_cli.options.model import (
    InputOptions,
    NetworkOptions,
    PredictionOptions,
    WeightOptions,
)
from fno_telemetry_cli.options.output import DashboardOptions, OutputOptions, PageOptions, WandbCaptureOptions
from fno_telemetry_cli.options.reading import ReadingOptions
from fno_telemetry_cli.options.signature import list_parameters

_GROUPS = (
    *(
        InputOptions,
        PredictionOptions,
        NetworkOptions,
        WeightOptions,
        MeasuringOptions,
        OutputOptions,
        DashboardOptions,
    ),
    *(PageOptions, WandbCaptureOptions, ComparisonOptions, DiagnosisOptions, ReadingOptions, LayerOptions),
)
_OTHER_NAMES = {"trust": "--trust-checkpoint", "given": "--map", "checkpoint": "--checkpoint"}
_OTHER_NAMES |= {"weights": "--weights"}
"""Arguments of the library that are called differently here, or are no option of a group."""

_ARGUMENT = re.compile(r"`([a-z_]+)(?:=([^`]+))?`")
_NEXT = re.compile(r", (?=[a-z_]+=)")


def spell_options(message: str) -> str:
    """Return a message of the library with its `argument`, and `argument=value`, as they are typed here.

    Several are in one pair of backticks: `inputs=0, target=1`. Anything else in backticks stays: it is no
    option.
    """
    return _ARGUMENT.sub(_spell, message)


def _spell(found: re.Match[str]) -> str:
    if found[2] is None:
        return _options().get(found[1], found[0])
    typed = []
    for argument in _NEXT.split(found[0].strip("`")):
        name, _, value = argument.partition("=")
        if name not in _options():
            return found[0]
        typed.append(_spell_value(_options()[name], value))
    return " ".join(typed)


def _spell_value(option: str, literal: str) -> str:
    """Return an option with the value that a Python literal has; True is the option alone."""
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return f"{option} {literal}"
    if value is True:
        return option
    if isinstance(value, dict):
        return " ".join(f"{option} {key}={part}" for key, part in value.items())
    if isinstance(value, list):
        return f"{option} {','.join(map(str, value))}"
    return f"{option} {value}"


@cache
def _options() -> Mapping[str, str]:
    """The option of each field of the groups."""
    found = dict(_OTHER_NAMES)
    for group in _GROUPS:
        for parameter in list_parameters(group):
            [declared] = [part for part in parameter.annotation.__metadata__ if _is_option(part)]
            # typer takes the first name after `Option(` for a default.
            names = [name for name in (declared.default, *(declared.param_decls or ())) if _is_long(name)]
            found[parameter.name] = names[0] if names else "--" + parameter.name.replace("_", "-")
    return found


def _is_option(part: object) -> bool:
    return isinstance(part, typer.models.OptionInfo)


def _is_long(name: object) -> bool:
    return isinstance(name, str) and name.startswith("--")
