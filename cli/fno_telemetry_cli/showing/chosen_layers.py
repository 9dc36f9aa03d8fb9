"""The layers of a record that `--layers`, `--sort` and `--top` choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import fno_telemetry as ft
from fno_telemetry import keys
from fno_telemetry.quantities import QUANTITIES
from fno_telemetry.records import place_name
from fno_telemetry.wording import hint_at_names
from fno_telemetry_cli.options.choosing import LayerOptions
from fno_telemetry_cli.options.completion import SORT_KEYS

ORDER, ROLE, NAME = SORT_KEYS
_ROLES = (*keys.ROLES, "norm", "activation", "other")

Entry = TypeVar("Entry", ft.ModuleRecord, ft.BlockRecord)
Ends = Sequence[tuple[str, ft.TensorRecord]]


@dataclass(frozen=True)
class Layers:
    """What the tables of a view are of: what goes in, modules, what comes out with the target, and blocks.

    `statistic` is the number by which they are sorted, None where it is none.
    """

    before: Ends
    modules: Sequence[ft.ModuleRecord]
    after: Ends
    blocks: Sequence[ft.BlockRecord]
    statistic: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.before or self.modules or self.after or self.blocks)


def list_layers(record: ft.CaptureRecord) -> Layers:
    """Return all layers of a record in execution order."""
    # Reports of earlier versions have the first input alone.
    inputs = record.inputs or ([] if record.input is None else [record.input])
    before = [(place_name("input", 0, entered.item), entered) for entered in inputs]
    after = [(place_name("output", 0, output.item), output) for output in record.outputs]
    if record.target is not None:
        after.append(("target", record.target))
    return Layers(before, keys.modules_in_order(record), after, record.blocks)


def check_choice(options: LayerOptions, records: Iterable[ft.CaptureRecord]) -> None:
    """Raise OptionError for a glob that matches no layer of the records, or a key that none of them has."""
    every = [list_layers(record) for record in records]
    for glob in options.layers or ():
        if not any(_matches(place, (glob,)) for layers in every for place in _places(layers)):
            places = list(dict.fromkeys(place for layers in every for place in _places(layers)))
            hint = hint_at_names(glob.strip("*?."), places, most=8)
            raise ft.OptionError(f"--layers {glob}: no layer matches. {hint}")
    key = options.key
    if key is None or key in (ORDER, ROLE, NAME):
        return
    there = {name for layers in every for entry in _entries(layers) for name in entry.stats}
    if key in there:
        return
    if key in QUANTITIES:
        raise ft.OptionError(f"--sort {key}: no layer of this report has this number")
    known = [ORDER, ROLE, NAME, *(name for name in QUANTITIES if name in there), *sorted(there)]
    raise ft.OptionError(f"--sort {key}: no such key. {hint_at_names(key, dict.fromkeys(known))}")


def choose_layers(record: ft.CaptureRecord, options: LayerOptions) -> Layers:
    """Return the layers that the options choose, in their order; undefined numbers come last."""
    found = list_layers(record)
    if options.layers:
        globs = options.layers
        found = Layers(
            [end for end in found.before if _matches(end[0], globs)],
            [module for module in found.modules if _matches(module.place, globs)],
            [end for end in found.after if _matches(end[0], globs)],
            [block for block in found.blocks if _matches(block.place, globs)],
        )
    elif options.sort is not None or options.top is not None:
        # A ranking is one of layers.
        found = replace(found, before=(), after=())
    if (key := options.key) is not None:
        found = _sort(found, key, options.direction)
    if options.top is not None:
        found = replace(found, modules=found.modules[: options.top], blocks=found.blocks[: options.top])
    return found


def choose_in_record(record: ft.CaptureRecord, options: LayerOptions) -> ft.CaptureRecord:
    """Return a record with the chosen modules and blocks alone."""
    found = choose_layers(record, options)
    return replace(record, modules=tuple(found.modules), blocks=tuple(found.blocks))


def choose_in_document(
    document: dict[str, Any], record: ft.CaptureRecord, options: LayerOptions
) -> dict[str, Any]:
    """Return a report with the chosen modules and blocks alone, in the chosen order."""
    found = choose_layers(record, options)
    places = [module.place for module in found.modules]
    by_place = {_place_in(entry): entry for entry in document["modules"]}
    blocks = {_place_in(entry): entry for entry in document["blocks"]}
    flat = document.get("layers", {})
    return document | {
        "layers": {key: flat[key] for key in flat if key.rpartition("/")[0] in places},
        "modules": [by_place[place] for place in places],
        "blocks": [blocks[block.place] for block in found.blocks],
    }


def _place_in(entry: dict[str, Any]) -> str:
    return place_name(entry["name"], entry.get("call", 0), entry.get("item"))


def _sort(found: Layers, key: str, direction: str | None) -> Layers:
    modules, blocks = list(found.modules), list(found.blocks)
    if key == ORDER:
        turn = -1 if direction == "desc" else 1
        return replace(found, modules=modules[::turn], blocks=blocks[::turn])
    if key == ROLE:
        return replace(found, modules=_sorted(modules, _rank_of_role, direction == "desc"))
    if key == NAME:
        falls = direction == "desc"
        return replace(
            found, modules=_sorted(modules, _place_of, falls), blocks=_sorted(blocks, _place_of, falls)
        )

    def value(entry: ft.ModuleRecord | ft.BlockRecord) -> float | None:
        return entry.stats.get(key)

    falls = direction != "asc"
    # A table without the number by which it would be sorted says nothing.
    return replace(
        found,
        modules=_sorted(modules, value, falls) if any(key in each.stats for each in modules) else (),
        blocks=_sorted(blocks, value, falls) if any(key in each.stats for each in blocks) else (),
        statistic=key,
    )


def _sorted(entries: Sequence[Entry], by: Callable[[Entry], Any], falls: bool) -> list[Entry]:
    """Return the entries sorted. Equal ones keep their execution order, undefined ones come last."""
    known: list[Entry] = [entry for entry in entries if by(entry) is not None]
    unknown: list[Entry] = [entry for entry in entries if by(entry) is None]
    return sorted(known, key=by, reverse=falls) + unknown


def _place_of(entry: ft.ModuleRecord | ft.BlockRecord) -> str:
    return entry.place


def _rank_of_role(module: ft.ModuleRecord) -> int:
    return _ROLES.index(module.role) if module.role in _ROLES else len(_ROLES)


def _places(layers: Layers) -> list[str]:
    ends = [name for name, _ in (*layers.before, *layers.after)]
    return [*ends, *(entry.place for entry in _entries(layers))]


def _entries(layers: Layers) -> list[ft.ModuleRecord | ft.BlockRecord]:
    return [*layers.modules, *layers.blocks]


def _matches(place: str, globs: Sequence[str]) -> bool:
    """Whether a pattern matches a place, also without its call; brackets may be those of an output."""
    names = (place, place.partition("@")[0])
    return any(
        fnmatchcase(name, pattern)
        for glob in globs
        for pattern in (glob, glob.replace("[", "[[]"))
        for name in names
    )
