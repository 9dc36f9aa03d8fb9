"""What a capture would measure, and how much memory it would keep."""

# Annotations name classes whose modules import torch; they are not evaluated.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import fno_telemetry as ft
from fno_telemetry import mapping
from fno_telemetry_cli.showing.tables import format_count
from fno_telemetry_cli.showing.terminal import print_json, print_results

_SKETCH_BYTES = 2**16 * 8  # one count of 8 bytes per bin
_MEAN_BYTES = 8  # the mean fields are float64


def show_plan(plan: Plan, as_json: bool) -> None:
    """Print the plan."""
    if as_json:
        print_json(plan.document())
    else:
        print_results(*plan.lines())


@dataclass(frozen=True)
class Plan:
    """What a capture would do."""

    samples: int
    batches: int
    modules: tuple[ft.MappedModule, ...]
    blocks: int
    checkpoints: tuple[str, ...] = ()  # their labels, if there are several

    @classmethod
    def of(
        cls,
        model_map: ft.ModelMap,
        samples: int,
        batches: int,
        layers: Sequence[str],
        exclude: Sequence[str],
        checkpoints: tuple[str, ...] = (),
    ) -> Plan:
        """Return what would be measured under these filters; MapError when one of them matches nothing."""
        names = mapping.select_names(model_map, layers, exclude)
        chosen = tuple(module for module in model_map.modules if module.name in names)
        return cls(samples, batches, chosen, len(model_map.blocks), checkpoints)

    @property
    def records(self) -> int:
        """How many module calls would be recorded."""
        return sum(module.calls for module in self.modules)

    @property
    def memory_bytes(self) -> int:
        """About how much the running statistics would take."""
        means = sum(prod(module.shape[1:]) * _MEAN_BYTES * module.calls for module in self.modules)
        # The mean fields of a single batch are merged with no others.
        return (means if self.batches > 1 else 0) + self.records * _SKETCH_BYTES

    def lines(self) -> Iterator[str]:
        """Yield a line with the totals, then one per module."""
        run, records = format_count(self.samples, "sample"), format_count(self.records, "module call")
        if self.checkpoints:
            number = format_count(len(self.checkpoints), "checkpoint")
            yield f"for each of {number}: {', '.join(self.checkpoints)}"
        yield f"would run {run} and record {records} and {format_count(self.blocks, 'block')}"
        yield f"about {ceil(self.memory_bytes / 2**20)} MiB of running statistics; nothing is written"
        for module in self.modules:
            shape = "×".join(["N", *map(str, module.shape[1:])])
            calls = f", {module.calls} calls" if module.calls > 1 else ""
            yield f"  {module.name}: {module.role}, {shape}{calls}"

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON writes it."""
        return {
            "schema": "fno-telemetry-dry-run/1",
            "samples": self.samples,
            "memory_bytes": self.memory_bytes,
            "modules": [
                {"name": m.name, "role": m.role, "shape": [None, *m.shape[1:]], "calls": m.calls}
                for m in self.modules
            ],
            "blocks": self.blocks,
            "checkpoints": list(self.checkpoints),
        }
