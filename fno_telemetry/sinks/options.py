"""Making a sink from its name and its options."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fno_telemetry import plugins
from fno_telemetry.errors import OptionError, SinkUnavailable, TelemetryError
from fno_telemetry.sinks.contract import Sink
from fno_telemetry.wording import hint_at_names

_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def check_path(argument: str, path: object) -> Path:
    """Return the path; OptionError for anything that is none."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise OptionError(f"`{argument}` {path!r}: a path was expected")
    return Path(path)


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
        there_are = hint_at_names(unknown[0], known) if known else "It has no options."
        raise OptionError(f"The sink {name!r} has no option {unknown[0]!r}. {there_are}")
    for option, value in given.items():
        expected = _find_misfit(constructor, option, value)
        if expected is not None:
            raise OptionError(f"`{option}` {value!r}: expected {expected}")
        given[option] = _as_path_if_declared(constructor, option, value)
    try:
        made: Sink = constructor(**given)
    except TelemetryError:
        raise
    except (Exception, SystemExit) as error:  # a constructor of another package may raise anything
        raise SinkUnavailable(
            f"The sink {name!r} cannot be made: {type(error).__name__}: {error}; leave it out, or repair it"
        ) from error
    return made


def list_options(name: str) -> list[str] | None:
    """Return the options of the sink of this name; None when it takes any. PluginNotFound for no sink."""
    return _option_names(plugins.load("sinks", name))


def find_misfit(name: str, option: str, value: object) -> str | None:
    """Return what the sink expects for this option when the value is something else; None when it fits.

    Compared with the annotation of the constructor's parameter if that is a text, number, truth value, path,
    Literal, or a union of those; any value fits another annotation. An empty text is no path. PluginNotFound
    for an unknown name.
    """
    return _find_misfit(plugins.load("sinks", name), option, value)


def _find_misfit(constructor: Callable[..., Any], option: str, value: object) -> str | None:
    kinds = _declared_kinds(constructor, option)
    if not kinds or any(_fits(value, kind, kinds) for kind in kinds):
        return None
    shown = [kind for kind in kinds if kind is not NoneType and not (kind is str and Path in kinds)]
    words = [_describe(kind) for kind in shown] or ["nothing"]
    return " or ".join(words)


def _fits(value: object, kind: Any, kinds: Sequence[Any]) -> bool:
    if get_origin(kind) is Literal:
        return any(type(value) is type(one) and value == one for one in get_args(kind))
    if isinstance(value, str) and kind in (str, Path):
        return bool(value) or Path not in kinds  # Path("") is the working folder, which nobody means
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _describe(kind: Any) -> str:
    if get_origin(kind) is not Literal:
        return _WORDS[kind]
    *others, last = map(str, get_args(kind))
    return f"{', '.join(others)} or {last}" if others else last


def _as_path_if_declared(constructor: Callable[..., Any], option: str, value: object) -> object:
    """Return a text as a Path where the parameter takes paths only."""
    kinds = _declared_kinds(constructor, option)
    return Path(value) if isinstance(value, str) and Path in kinds and str not in kinds else value


def _declared_kinds(constructor: Callable[..., Any], option: str) -> list[Any]:
    """Return the alternatives of a parameter's annotation; none when one of them cannot be checked here."""
    try:
        parameter = inspect.signature(constructor).parameters.get(option)
    except (TypeError, ValueError):
        return []
    if parameter is None or parameter.kind not in _BY_KEYWORD:
        return []
    made_by = getattr(constructor, "__init__", None) if isinstance(constructor, type) else constructor
    function = inspect.unwrap(made_by or constructor)
    only_this = SimpleNamespace(__annotations__={option: parameter.annotation})
    try:
        declared = get_type_hints(only_this, getattr(function, "__globals__", {}))[option]
    except (NameError, AttributeError, SyntaxError, TypeError):  # a name for type checkers, or no type
        return []
    kinds = list(get_args(declared)) if get_origin(declared) in (Union, UnionType) else [declared]
    if any(kind not in (*_WORDS, NoneType) and get_origin(kind) is not Literal for kind in kinds):
        return []
    return [*kinds, NoneType] if parameter.default is None else kinds


def _option_names(constructor: Callable[..., Any]) -> list[str] | None:
    """Return the names that can be given by keyword; None when any name is taken, or none are declared."""
    try:
        parameters = inspect.signature(constructor).parameters.values()
    except (TypeError, ValueError):  # of what is written in C, or cannot be called at all
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind in _BY_KEYWORD]
