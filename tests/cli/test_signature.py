"""Commands whose options are the fields of a dataclass."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from fno_telemetry_cli.options.signature import list_parameters, make_request, with_options


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.", rich_help_panel="Size")] = 3
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None


@dataclass(frozen=True, kw_only=True)
class Colour:
    name: Annotated[str, typer.Option("--colour")] = "red"
    size: Size


@dataclass(frozen=True, kw_only=True)
class Request:
    path: Annotated[str, typer.Argument()]
    colour: Colour
    loud: Annotated[bool, typer.Option("--loud")] = False


def call(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return app(list(arguments), standalone_mode=False)


def test_options_of_groups_stand_where_the_group_does():
    found = [(parameter.name, parameter.default) for parameter in list_parameters(Request)]
    expected = [("name", "red"), ("width", 3), ("settings", None), ("loud", False)]
    assert [name for name, _ in found] == ["path", *(name for name, _ in expected)]
    assert found[1:] == expected


def test_a_command_gets_its_request_whole():
    seen = []

    @with_options(Request)
    def paint(request: Request) -> None:
        """Paint it."""
        seen.append(request)

    call(paint, "wall", "--colour", "blue", "--width", "5", "--set", "a=1", "--set", "b=2")
    call(paint, "door", "--loud")
    assert seen == [
        Request(path="wall", colour=Colour(name="blue", size=Size(width=5, settings=["a=1", "b=2"]))),
        Request(path="door", colour=Colour(size=Size()), loud=True),
    ]


def test_a_command_may_take_the_context_as_well():
    seen = []

    @with_options(Size)
    def measure(context: typer.Context, request: Size) -> None:
        seen.append((context.get_parameter_source("width").name, request.width))

    call(measure, "--width", "4")
    call(measure)
    assert seen == [("COMMANDLINE", 4), ("DEFAULT", 3)]


def test_help_text_name_and_panels_are_those_of_function_and_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    @with_options(Size)
    def measure(request: Size) -> None:
        """Measure it."""

    call(measure, "--help")
    shown = capsys.readouterr().out
    assert [word for word in ("Measure it.", "How wide.", "KEY=VALUE", " Size ") if word not in shown] == []
    assert measure.__name__ == "measure"


def test_a_missing_argument_is_an_error_of_the_parser():
    with pytest.raises(typer.TyperException, match="Missing parameter: path"):
        call(with_options(Request)(lambda request: None))


def test_two_options_of_one_name_are_refused_when_the_command_is_made():
    @dataclass(frozen=True, kw_only=True)
    class Twice:
        size: Size
        other: Size

    with pytest.raises(ValueError, match="duplicate parameter name: 'width'"):
        with_options(Twice)(lambda request: None)


def test_what_a_request_refuses_is_raised_when_it_is_made():
    @dataclass(frozen=True, kw_only=True)
    class Checked:
        width: Annotated[int, typer.Option()] = 1

        def __post_init__(self):
            if self.width < 1:
                raise ValueError("too narrow")

    with pytest.raises(ValueError, match="too narrow"):
        make_request(Checked, {"width": 0})
