"""Options about which records of a training are read."""

from dataclasses import dataclass
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry.records import STAGES
from fno_telemetry.wording import hint_at_names
from fno_telemetry_cli.options.completion import complete_words


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Which stage of a training is read: its steps, or its validations."""

    stage: Annotated[
        str | None,
        typer.Option(
            metavar="STAGE",
            help="Of a training, read its steps (train) or its validations (val). Default: train.",
            show_default=False,
            autocompletion=complete_words(STAGES),
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.stage is not None and self.stage not in STAGES:
            raise ft.OptionError(
                f"--stage {self.stage!r}: no such stage. {hint_at_names(self.stage, STAGES)}"
            )
