"""`--config FILE.toml`: options from a file; those on the command line win."""

import inspect
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

import fno_telemetry as ft
from fno_telemetry.files import read_toml
from fno_telemetry.wording import hint_at_names
from fno_telemetry_cli.invocation import Invocation

_NEVER = ("config", "help")
_RIVALS = {"input": ("batches",), "batches": ("input", "key", "axes", "batch_size")}
_RIVALS |= {"architecture": ("model",), "model": ("architecture",)}


def apply_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of this command's options; OptionError when they cannot be."""
    if path is None:
        return None
    names = {
        option.removeprefix("--").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for option in parameter.opts
        if option.startswith("--") and parameter.name not in _NEVER
    }
    # typer wraps the function; its own annotations say what each option takes.
    kinds = get_type_hints(inspect.unwrap(context.command.callback or apply_config))
    defaults: dict[str, Any] = {}
    for key, value in read_toml(path, ft.OptionError, "--config", "; check the path").items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            hint = hint_at_names(key.replace("-", "_"), sorted(names))
            raise ft.OptionError(f"--config {path}: no option is called {key!r}. {hint}")
        if name in _TABLES and isinstance(value, dict):
            value = list(_TABLES[name](value))
        defaults[name] = _checked(f"--config {path}: {key}", value, kinds[name])
    context.default_map = defaults
    context.ensure_object(Invocation).json_by_config = defaults.get("as_json", False)
    return path


def prefer_command_line(context: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's arguments without what the file sets against the command line.

    Of options that exclude each other the typed one counts; `--set` adds to, and overrides, the file's [set].
    """
    final = dict(values)
    in_file = context.default_map or {}
    for name, others in _RIVALS.items():
        if _typed(context, name):
            final |= {other: None for other in others if other in in_file and not _typed(context, other)}
    for name in _TABLES:
        if _typed(context, name):
            typed_keys = {_key(text) for text in values[name]}
            kept = [text for text in in_file.get(name) or () if _key(text) not in typed_keys]
            final[name] = [*kept, *values[name]]
    return final


def list_typed_options(context: typer.Context, names: Collection[str]) -> list[str]:
    """Return the options of these arguments that are on the command line, as they are spelled there."""
    return [
        next(option for option in parameter.opts if option.startswith("--"))
        for parameter in context.command.params
        if parameter.name in names and _typed(context, parameter.name)
    ]


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _key(text: str) -> str:
    """Return what is in front of the equals sign of a `key=value` text."""
    return text.partition("=")[0].strip()


def _settings(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the `key=value` texts of a table."""
    for key, value in table.items():
        yield f"{key}={_literal(value)}"


def _sink_options(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the `sink.key=value` texts of a table that has a table for each sink."""
    for sink, options in table.items():
        if isinstance(options, dict):
            yield from (f"{sink}.{text}" for text in _settings(options))
        else:
            yield f"{sink}={_literal(options)}"


def _checked(where: str, value: Any, kind: Any) -> Any:
    """Return the value as an option of this kind takes it; a single text counts as a list of one."""
    accepted = {kind, *get_args(kind)}
    if bool in accepted:
        fits, expected = isinstance(value, bool), "true or false"
    elif int in accepted:
        fits, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif list[str] in accepted:
        value = [value] if isinstance(value, str) else value
        fits = isinstance(value, list) and all(isinstance(part, str) for part in value)
        expected = "a text or a list of texts"
    else:
        fits, expected = isinstance(value, str) and "\0" not in value, "a text"
    if not fits:
        raise ft.OptionError(f"{where} = {_literal(value)}: {expected} was expected")
    return value


def _literal(value: Any) -> str:
    """Return a TOML literal of a value that TOML gave."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_literal(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_literal(part)}" for key, part in value.items()) + "}"
    # JSON writes texts as TOML does; numbers, dates and times print as they are written.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


# Options that may be tables in the file; what the command line gives of them is added.
_TABLES = {"settings": _settings, "sink_option": _sink_options}
