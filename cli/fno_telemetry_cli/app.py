"""The application: its commands, its exit codes, and errors as one line."""

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

import fno_telemetry as ft
from fno_telemetry.wording import to_one_line
from fno_telemetry_cli import launched
from fno_telemetry_cli.interrupts import ignore_sigterm, sigterm_as_ctrl_c
from fno_telemetry_cli.invocation import Invocation
from fno_telemetry_cli.options.panels import arrange
from fno_telemetry_cli.showing import terminal

EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130

COMMANDS = {
    "capture": ("capture:capture", "Run a model over a few samples and send the record to the chosen sinks."),
    "view": ("view:view", "Show a report as tables: modules in execution order, then blocks."),
    "compare": ("compare:compare", "Print what changed in each layer and block, and whether it got worse."),
    "diagnose": (
        "diagnose:diagnose",
        "Print what is wrong, in which layer, which numbers show it, and what to do.",
    ),
    "merge": ("merge:merge", "Join the reports of captures that ran apart into one series, for every sink."),
    "map": ("map:map_model", "Print each module's role and the reason for it."),
    "plugins": (
        "plugins:plugins",
        "List the sinks, statistics, architectures and rules, both built in and from plug-ins.",
    ),
}
"""Command -> its module in `commands` with its function there, and the first line of its help."""


def _hide_types_of_flags(parameters: list[Any]) -> list[Any]:
    """Take `<bool>` out of the help of --help and the like, as if they took a value; return the same list."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class _Command(TyperCommand):
    """A command with its options, in panels."""

    def get_params(self, ctx: Any) -> list[Any]:
        return arrange(str(self.name), _hide_types_of_flags(super().get_params(ctx)))


class _Commands(TyperGroup):
    """All commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _hide_types_of_flags(super().get_params(ctx))


@cache
def load_command(name: str) -> TyperCommand:
    """Return a command with its options; its module is imported now."""
    module, _, function = COMMANDS[name][0].partition(":")
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, cls=_Command)(
        getattr(import_module(f"fno_telemetry_cli.commands.{module}"), function)
    )
    return cast(TyperCommand, typer.main.get_command(alone))


class _Deferred(TyperCommand):
    """A command whose module is imported when it is used: the help of all commands needs none of them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load_command(str(self.name)).make_context(info_name, args, parent, **extra)


app = typer.Typer(
    name="fno-telemetry",
    cls=_Commands,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, (_, _help) in COMMANDS.items():
    app.command(_name, cls=_Deferred, help=_help)(lambda: None)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fno-telemetry {ft.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _application(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            metavar="",
            help="Print the version, then exit.",
        ),
    ] = False,
) -> None:
    """See what happens inside neural operators: capture once, view anywhere.

    Example: fno-telemetry capture --input train.npz --output out
    """
    if context.invoked_subcommand is None:
        context.get_help()  # which prints it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code; an error is one line on stderr, with --json also on stdout."""
    invocation = Invocation() if arguments is None else Invocation(list(arguments))
    terminal.make_streams_usable()
    try:
        with sigterm_as_ctrl_c():
            code = _run(invocation)
    except KeyboardInterrupt:  # while the outcome was printed
        code = EXIT_INTERRUPTED
    except terminal.ReaderLeft:
        # Who reads our output has seen enough, as `head` does; that is not an error.
        terminal.drop_stdout()
        code = 0
    except OSError as error:
        # Standard output on a full disk, for one.
        terminal.drop_stdout()
        terminal.print_error(f"{error.filename or 'the output'}: {error.strerror or error}")
        code = EXIT_UNUSABLE
    if arguments is None:
        ignore_sigterm()  # all is written, and the exit code says how it went
        # What imported code prints while the interpreter ends is not a result.
        terminal.point_stdout_at_stderr()
    sys.exit(code)


def _run(invocation: Invocation) -> int:
    try:
        code = app(
            args=invocation.arguments, prog_name="fno-telemetry", standalone_mode=False, obj=invocation
        )
    except (ft.TelemetryError, typer.TyperException) as error:
        _report(_advice(error), invocation)
        return EXIT_UNUSABLE
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except (terminal.ReaderLeft, OSError):
        raise  # of the output
    except Exception as error:  # noqa: BLE001 - a traceback would end with 1, which means "worse"
        _report(_describe_bug(error), invocation)
        return EXIT_UNUSABLE
    if code == EXIT_INTERRUPTED:
        _report("interrupted", invocation)
    return code or 0


def _advice(error: Exception) -> str:
    if not isinstance(error, typer.TyperException):
        from fno_telemetry_cli.options.spelling import spell_options  # imports the options of all commands

        return spell_options(str(error))
    context = getattr(error, "ctx", None)  # on errors in the use of options
    advice = f" See: {context.command_path} --help" if context is not None else ""
    message = error.format_message().rstrip(". ")
    return f"{message}{'' if message.endswith('?') else '.'}{advice}"


def _describe_bug(error: Exception) -> str:
    """Return what an error is that nobody thought of, and where it arose, for those who can mend it."""
    import traceback  # only where it is needed, as here

    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno}); "
        "this is an error in fno-telemetry: please report it with the command"
    )


def _report(message: str, invocation: Invocation) -> None:
    if not launched.is_first():
        return  # the first process says it
    terminal.print_error(message)
    if invocation.as_json:
        terminal.print_json({"schema": "fno-telemetry-error/1", "error": to_one_line(message)})
