"""Options about which layers are shown, in which order, and how many."""

from dataclasses import dataclass
from typing import Annotated

import typer

import fno_telemetry as ft
from fno_telemetry_cli.options.completion import complete_layers, complete_sort_keys

DIRECTIONS = ("asc", "desc")


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """Which layers a view shows, and in which order."""

    layers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Show only the layers and blocks that match; * also matches dots, and a call (@1) or output "
            "(\\[amp]) may be a part of the name. Repeatable.",
            autocompletion=complete_layers,
        ),
    ] = None
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="KEY[:asc|:desc]",
            help="Sort by a statistic, such as rms or gain, the largest first; or by order, role or name. "
            "Default: order.",
            show_default=False,
            autocompletion=complete_sort_keys,
        ),
    ] = None
    top: Annotated[
        int | None,
        typer.Option(metavar="N", help="Show only the first N rows of each table.", min=1),
    ] = None
    show_all: Annotated[
        bool,
        typer.Option(
            "--all",
            metavar="",
            help="In a terminal, show all layers, also where they need more than one screen.",
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.sort is not None and self.direction not in (None, *DIRECTIONS):
            raise ft.OptionError(
                f"--sort {self.sort}: expected {self.key}, {self.key}:asc or {self.key}:desc"
            )

    @property
    def typed(self) -> str | None:
        """The first of these options that was given; None without."""
        return "--layers" if self.layers else self.typed_order

    @property
    def typed_order(self) -> str | None:
        """The first of them but `--layers`; None without."""
        given = {"--sort": self.sort, "--top": self.top, "--all": self.show_all}
        return next((option for option, value in given.items() if value), None)

    @property
    def chooses(self) -> bool:
        """Whether layers, their order or their number were chosen."""
        return bool(self.layers or self.sort or self.top)

    @property
    def key(self) -> str | None:
        """What the rows are sorted by; None without."""
        return None if self.sort is None else self.sort.partition(":")[0]

    @property
    def direction(self) -> str | None:
        """The direction that was typed; None without."""
        return None if self.sort is None else (self.sort.partition(":")[2] or None)
