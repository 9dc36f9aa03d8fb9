"""Which sinks a command feeds, made from the names and options that the user typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

import fno_telemetry as ft
from fno_telemetry_cli.options import names_of

_OUTPUT, _WANDB = "Output", "W&B"

SinkNames = Annotated[
    list[str] | None,
    typer.Option(
        "--sink",
        metavar="NAMES",
        help="json, tensorboard, wandb or an installed one; comma list or repeated. JSON is always written.",
        rich_help_panel=_OUTPUT,
        autocompletion=names_of("sinks"),
    ),
]
WandbProject = Annotated[
    str | None, typer.Option(metavar="NAME", help="Default: fno-telemetry.", rich_help_panel=_WANDB)
]
WandbEntity = Annotated[
    str | None, typer.Option(metavar="NAME", help="User or team. Default: your own.", rich_help_panel=_WANDB)
]
WandbMode = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="online, offline or disabled. Default: online where there are credentials.",
        rich_help_panel=_WANDB,
    ),
]
WandbLayout = Annotated[
    str | None,
    typer.Option(
        metavar="LAYOUT",
        help="experiment: one run, a row per checkpoint (default); or per-checkpoint.",
        rich_help_panel=_WANDB,
    ),
]
WandbAlert = Annotated[
    bool,
    typer.Option(
        "--wandb-alert",
        metavar="",
        help="With --diagnose: send an alert for each record with an error or a warning.",
        rich_help_panel=_WANDB,
    ),
]


@dataclass(frozen=True)
class WandbOptions:
    """What was typed for W&B; None or False where nothing was."""

    project: str | None = None
    entity: str | None = None
    mode: str | None = None
    layout: str | None = None
    alert: bool = False

    @property
    def typed(self) -> list[str]:
        """The names of those that were typed."""
        return [name for name, value in vars(self).items() if value not in (None, False)]


def choose_sinks(
    typed: Sequence[str],
    wandb: WandbOptions,
    always: Sequence[str] = ("json",),
    group: str | None = None,
) -> list[ft.Sink]:
    """Return the sinks of these comma lists, `always` in front; TelemetryError for what cannot be made.

    `group` is that of W&B runs; without one it is the experiment.
    """
    names = [name.strip() for part in typed for name in part.split(",")]
    if not all(names):
        raise ft.OptionError(
            f"--sink {','.join(typed)!r}: an empty name; expected json,tensorboard,wandb or the like"
        )
    if wandb.typed and "wandb" not in names:
        raise ft.OptionError(f"--wandb-{wandb.typed[0]} is for the wandb sink; add --sink wandb")
    return [_sink(name, wandb, group) for name in dict.fromkeys([*always, *names])]


def _sink(name: str, wandb: WandbOptions, group: str | None) -> ft.Sink:
    if name == "wandb":
        mode: Any = wandb.mode
        layout: Any = wandb.layout or "experiment"
        return ft.WandbRun(
            project=wandb.project or "fno-telemetry",
            entity=wandb.entity,
            mode=mode,
            layout=layout,
            group=group,
            alert=wandb.alert,
        )
    try:
        made: ft.Sink = ft.load_plugin("sinks", name)()
    except ft.TelemetryError:
        raise
    except (Exception, SystemExit) as error:  # an installed sink may raise anything
        raise ft.SinkUnavailable(
            f"--sink {name}: cannot be made ({type(error).__name__}: {error}); leave it out, or repair it"
        ) from error
    return made
