"""The model map as a tree for the terminal, and as JSON."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

import fno_telemetry as ft
from fno_telemetry.wording import to_printable
from fno_telemetry_cli.showing.tables import shown

_ROLE_STYLES = {
    "lifting": "cyan",
    "spectral": "magenta",
    "local": "blue",
    "block": "bold",
    "projection": "cyan",
}


def map_view(model_map: ft.ModelMap, architecture: str) -> RenderableType:
    """Return the model map as a tree with the reason for each role, then the blocks."""
    tree = Tree(shown(architecture, "bold"))
    branches = {"": tree}
    for module in sorted(model_map.modules, key=_depth_first(model_map)):
        path = _dotted(module.name)
        parent, _, leaf = path.rpartition(".")
        branches[path] = _branch(branches, parent).add(_label(leaf, module))
    if not model_map.blocks:
        return tree
    lines = [Text(), Text("blocks: a spectral and a local branch are added", style="bold")]
    for block in model_map.blocks:
        operands = " + ".join((*block.spectral, *block.local))
        lines.append(shown(f"{block.name}{f'@{block.call}' if block.call else ''}: {operands}"))
    return Group(tree, *lines)


def map_document(model_map: ft.ModelMap) -> dict[str, Any]:
    """Return the model map as JSON writes it."""
    return {
        "schema": "fno-telemetry-map/1",
        "modules": [
            {
                "name": module.name,
                "class": module.class_name,
                "role": module.role,
                "reason": module.reason,
                "spatial_axes": list(module.spatial_axes),
                "channel_axis": module.channel_axis,
                "calls": module.calls,
                "modes": None if module.modes is None else list(module.modes),
            }
            for module in model_map.modules
        ],
        "blocks": [
            {
                "name": block.name,
                "call": block.call,
                "spectral": list(block.spectral),
                "local": list(block.local),
            }
            for block in model_map.blocks
        ],
    }


def _dotted(name: str) -> str:
    """Return a path in which a function called by a module (`block#gelu`) is its child."""
    return name.replace("#", ".#")


def _depth_first(model_map: ft.ModelMap) -> Callable[[ft.MappedModule], tuple[int, ...]]:
    """Parents before children, siblings in order of completion."""
    first: dict[str, int] = {}
    for index, module in enumerate(model_map.modules):
        path = ""
        for part in _dotted(module.name).split("."):
            path = f"{path}.{part}"
            first.setdefault(path, index)

    def key(module: ft.MappedModule) -> tuple[int, ...]:
        path, ranks = "", []
        for part in _dotted(module.name).split("."):
            path = f"{path}.{part}"
            ranks.append(first[path])
        return tuple(ranks)

    return key


def _branch(branches: dict[str, Tree], path: str) -> Tree:
    if path not in branches:
        parent, _, leaf = path.rpartition(".")
        branches[path] = _branch(branches, parent).add(shown(leaf, "dim"))
    return branches[path]


def _label(leaf: str, module: ft.MappedModule) -> Text:
    details = [module.class_name]
    if module.spatial_axes:
        details.append("space axes " + ", ".join(map(str, module.spatial_axes)))
    if module.modes:
        details.append("modes " + "×".join(map(str, module.modes)))
    if module.calls > 1:
        details.append(f"{module.calls} calls")
    return Text.assemble(
        to_printable(leaf),
        "  ",
        (module.role, _ROLE_STYLES.get(module.role, "")),
        "  ",
        (to_printable(f"{', '.join(details)}: {module.reason}"), "dim"),
    )
