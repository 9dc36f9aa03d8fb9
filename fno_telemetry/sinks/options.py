"""Making a sink from its name and its options."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from fno_telemetry import plugins
from fno_telemetry.errors import OptionError, SinkUnavailable, TelemetryError
from fno_telemetry.sinks.contract import Sink

_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def make_sink(name: str, options: Mapping[str, object] | None = None) -> Sink:
    """Return a new sink of this name; `options` are the keyword arguments of its constructor.

    Raises PluginNotFound for an unknown name, OptionError for an option that the sink does not have or a
    value that it refuses, SinkUnavailable for any other error of the constructor.
    """
    constructor = plugins.load("sinks", name)
    given = dict(options or {})
    known = _option_names(constructor)
    unknown = [] if known is None else [option for option in given if option not in known]
    if unknown:
        there_are = f"Known: {', '.join(known)}." if known else "It has no options."
        raise OptionError(f"The sink {name!r} has no option {unknown[0]!r}. {there_are}")
    try:
        made: Sink = constructor(**given)
    except TelemetryError:
        raise
    except (Exception, SystemExit) as error:  # a constructor of another package may raise anything
        raise SinkUnavailable(
            f"The sink {name!r} cannot be made: {type(error).__name__}: {error}; leave it out, or repair it"
        ) from error
    return made


def _option_names(constructor: Callable[..., Any]) -> list[str] | None:
    """Return the names that can be given by keyword; None when any name is taken, or none are declared."""
    try:
        parameters = inspect.signature(constructor).parameters.values()
    except (TypeError, ValueError):  # of what is written in C, or cannot be called at all
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind in _BY_KEYWORD]
