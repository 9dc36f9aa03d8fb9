"""Commands whose options are the fields of a frozen dataclass: one declaration, passed on as one value."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_type_hints

import typer

from fno_telemetry_cli.options.config_file import prefer_command_line

Request = TypeVar("Request")

_CONTEXT = "context"


def with_options(request: type[Request]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a function of a request, or of (context, request), into a command with an option for each field.

    `request` is a dataclass. A field is `Annotated[type, typer.Option(…)]`, or a group of options: a
    dataclass of the same kind, whose fields become options of the command like the others. Where options
    in a file of `--config` exclude typed ones, the request has those that were typed.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        takes_context = len(inspect.signature(run).parameters) > 1

        def command(**values: Any) -> None:
            context: typer.Context = values.pop(_CONTEXT)
            made = make_request(request, prefer_command_line(context, values))
            run(context, made) if takes_context else run(made)

        _declare(command, run, [_parameter(_CONTEXT, typer.Context), *list_parameters(request)])
        return command

    return decorate


def list_parameters(request: type) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each option of a request, those of its groups in their place."""
    for field, kind in _fields(request):
        if _is_group(kind):
            yield from list_parameters(kind)
        else:
            default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            yield _parameter(field.name, kind, default)


def make_request(request: type[Request], values: Mapping[str, Any]) -> Request:
    """Return the request that these values of its options make."""
    declared: type = request  # mypy takes no type variable for hashable
    made = {
        field.name: make_request(kind, values) if _is_group(kind) else values[field.name]
        for field, kind in _fields(declared)
    }
    return request(**made)


@cache
def _fields(request: type) -> Sequence[tuple[dataclasses.Field[Any], Any]]:
    """Return each field and its annotation, evaluated."""
    hints = get_type_hints(request, include_extras=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(request)]


def _is_group(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _declare(
    command: Callable[..., None], run: Callable[..., None], parameters: list[inspect.Parameter]
) -> None:
    """Give a command what typer reads: name, help text and signature."""
    command.__name__, command.__doc__ = run.__name__, run.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
