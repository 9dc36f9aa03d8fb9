"""A comparison for the terminal and as JSON."""

# Annotations name classes whose modules import numpy; they are not evaluated.
from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry.findings import SEVERITIES
from fno_telemetry_cli.showing.columns import folded
from fno_telemetry_cli.showing.tables import number, shown, some

if TYPE_CHECKING:
    from fno_telemetry.comparison import Change

_DISTANCES = ("decades", "PSI", "spectrum")
_NARROW = 80  # columns of the terminal below which only the first distance is shown
_NARROWEST_NAME = 20
_MOST_ROWS = 12
_MOST_WORSE = 7  # of these rows, so that there is room for the most changed layers


def comparison_document(comparison: ft.Comparison) -> dict[str, Any]:
    """Return the comparison as JSON writes it."""
    document = dataclasses.asdict(comparison)
    return {"schema": "fno-telemetry-compare/2", "worse": comparison.worse, **document}


def comparison_view(comparison: ft.Comparison, width: int, show_all: bool = False) -> list[RenderableType]:
    """Return the verdict and its evidence in execution order.

    Without `show_all` that is what matters most: the first layer that differs, those that are worse, those
    that changed most. A module that returns the tensor of an earlier one is then left out.
    """
    lines: list[RenderableType] = [comparison.verdict, *comparison.notes]
    if comparison.accuracy:
        lines.append(f"from first to last: {'; '.join(change.message for change in comparison.accuracy)}")
    differing = [layer for layer in _layers(comparison) if layer.differs]
    shown = differing if show_all else _choose(differing, comparison.first_diverging)
    if shown:
        lines += _table(shown, width)
    lines += _left_out(differing, shown)
    for what, names in (("added", comparison.added), ("removed", comparison.removed)):
        if names:
            lines.append(f"{what}: {', '.join(names) if show_all else some(names)}")
    lines += _of_the_group(comparison, show_all)
    return lines


def _layers(comparison: ft.Comparison) -> Iterator[ft.LayerChange]:
    """Yield the modules, each with the changes of the block of that name, and the blocks without a module."""
    blocks = {block.place: block for block in comparison.blocks}
    for module in comparison.modules:
        block = blocks.pop(module.place, None)
        if block is None:
            yield module
        elif module.same_as is not None:
            yield from (module, block)
        else:
            changes = sorted((*module.changes, *block.changes), key=_severity_of_change, reverse=True)
            yield replace(module, differs=module.differs or block.differs, changes=tuple(changes))
    yield from blocks.values()


def _choose(layers: Sequence[ft.LayerChange], first: str | None) -> list[ft.LayerChange]:
    """Return the layers that matter most, in the given order."""
    distinct = [layer for layer in layers if layer.same_as is None]
    worse = sorted(filter(_is_worse, distinct), key=_severity, reverse=True)[:_MOST_WORSE]
    most_changed = sorted(distinct, key=lambda layer: -max(layer.distance or 0, layer.spectral_distance or 0))
    by_weight = [*(layer for layer in distinct if layer.place == first), *worse, *most_changed]
    kept = list(dict.fromkeys(layer.place for layer in by_weight))[:_MOST_ROWS]
    return [layer for layer in distinct if layer.place in kept]


def _left_out(differing: Sequence[ft.LayerChange], shown: Sequence[ft.LayerChange]) -> Iterator[str]:
    """Yield which layers are not listed again, and how many are not listed at all."""
    places = {layer.place for layer in shown}
    hidden = [layer for layer in differing if layer not in shown]
    again = [layer for layer in hidden if layer.same_as in places]
    hidden = [layer for layer in hidden if layer not in again]
    if again:
        names = some([layer.place for layer in again])
        yield f"not listed again, with the tensor of an earlier layer: {names}"
    if hidden:
        worse = sum(map(_is_worse, hidden))
        counted = f", {worse} of them worse" if worse else ""
        yield f"{_more(len(hidden), 'layer')} changed{counted}; {_all_shows(len(hidden))}"


def _of_the_group(comparison: ft.Comparison, show_all: bool) -> Iterator[str]:
    """Yield in how many runs of a group each layer is worse."""
    again = {layer.place for layer in comparison.modules if layer.same_as is not None}
    found = [each for each in comparison.group if show_all or each.layer not in again]
    shown = found if show_all else found[:_MOST_ROWS]
    for finding in shown:
        yield f"{finding.runs} of {finding.of} runs: {finding.layer} {finding.statistic}"
    if len(shown) < len(found):
        hidden = len(found) - len(shown)
        yield f"{_more(hidden, 'statistic')} worse in some run; {_all_shows(hidden)}"


def _more(count: int, noun: str) -> str:
    return f"{count} more {noun}{'' if count == 1 else 's'}"


def _all_shows(count: int) -> str:
    return f"--all shows {'it' if count == 1 else 'them'}"


def _severity(layer: ft.LayerChange) -> int:
    return -1 if layer.severity is None else SEVERITIES.index(layer.severity)


def _severity_of_change(change: Change) -> int:
    return SEVERITIES.index(change.severity)


def _is_worse(layer: ft.LayerChange) -> bool:
    return layer.severity in SEVERITIES[1:]


def _table(layers: Sequence[ft.LayerChange], width: int) -> Iterator[RenderableType]:
    """Yield a table of the layers, then a line that names the columns for which there was no room."""
    headings = _DISTANCES if width >= _NARROW else _DISTANCES[:1]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("in execution order", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what changed", overflow="fold")
    styles = {"warning": "yellow", "error": "red"}
    room = max(_NARROWEST_NAME, width // 3)
    for layer in layers:
        changes = shown("; ".join(change.message for change in layer.changes))
        numbers = map(number, (layer.distance, layer.psi, layer.spectral_distance)[: len(headings)])
        style = styles.get(layer.severity or "", "")
        table.add_row(folded(shown(layer.place), room), *numbers, changes, style=style)
    yield table
    if len(headings) < len(_DISTANCES):
        yield Text(f"no room at this width for: {', '.join(_DISTANCES[len(headings) :])}", style="dim")
