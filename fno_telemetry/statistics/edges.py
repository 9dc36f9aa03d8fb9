"""How the error at the edges of fields compares with that inside, and how fields go on over their edges.

A Fourier layer takes fields for periodic: where the target is not, its opposite edges are not neighbours, and
an operator without padding has its error there.
"""

import math
from dataclasses import dataclass

import torch

from fno_telemetry.quantities import select
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Known, Of, Summary, SummedState, Undefined, keys_of
from fno_telemetry.statistics.field_energy import NO_ENERGY
from fno_telemetry.statistics.subjects import Comparison

EDGE = 16
"""The outermost 1 / EDGE of the points of an axis, one at least, are an edge, at either end."""

LEAST_POINTS = 8


@dataclass(frozen=True)
class EdgeState(SummedState):
    """Sums of squares and their numbers by axis, also over different resolutions.

    `sums` is (axes, 6, 2), the last axis for the sum and the number of: errors at the edges; errors inside;
    differences of the target between its ends, then between neighbours; and the same of the output.
    """

    nonfinite: torch.Tensor
    sums: torch.Tensor

    def merge(self, other: "EdgeState") -> "EdgeState | Undefined":
        """Return the sums over both data sets."""
        if self.sums.shape != other.sums.shape:
            return Undefined("the number of spatial axes changed between batches")
        merged: EdgeState = super().merge(other)
        return merged


class Edges:
    """The error at the edges over that inside, of the axis where it is largest; jumps over these edges."""

    name = "edges"
    of: Of = "comparison"
    needs = ()
    quantities = select("edge_error_ratio", "target_edge_jump", "output_edge_jump")

    def measure(self, subject: Comparison) -> EdgeState | Undefined | Empty:
        """Measure an output and its target in float64, or in the widest type that the device has."""
        output, target = subject.output, subject.target
        if not output.sizes:
            return Undefined("no spatial axes are known")
        if output.count == 0:
            return Empty()
        return _measure(output, target)

    def summarize(self, state: EdgeState, known: Known) -> Summary:
        """Return root mean squares over each other, of the axis with the largest ratio of errors."""
        names = keys_of(self)
        if count := int(state.nonfinite):
            return _undefined(names, f"{count:,} elements of the output and the target are not finite")
        if not torch.isfinite(state.sums).all():
            return _undefined(names, "the squares overflow float64")
        if not state.sums[:, 0, 1].any():
            return _undefined(names, f"no spatial axis has {LEAST_POINTS} points")
        rows = [row for row in state.sums.tolist() if row[0][1]]
        ratios = [[_relate(row[index], row[index + 1]) for index in (0, 2, 4)] for row in rows]
        # Where the ratio of errors is undefined, so is everything about its axis.
        known_ratios = [found for found in ratios if found[0] is not None]
        if not known_ratios:
            return _undefined(names, "there is no error inside")
        found = max(known_ratios, key=lambda each: each[0] or 0)
        stats = dict(zip(names, found, strict=True))
        reason = "neighbours do not differ"
        return Summary(stats, {name: reason for name, value in stats.items() if value is None})


def _undefined(names: tuple[str, ...], reason: str) -> Summary:
    return Summary(dict.fromkeys(names), dict.fromkeys(names, reason))


def _relate(first: list[float], second: list[float]) -> float | None:
    """Return one root mean square over another; None if there is next to nothing of the other."""
    if second[0] <= NO_ENERGY * first[0] or not second[0]:
        return None
    return math.sqrt((first[0] / first[1]) / (second[0] / second[1]))


def _measure(output: Activation, target: Activation) -> EdgeState:
    wide = torch.promote_types(output.field.dtype, target.field.dtype)
    wide = torch.promote_types(wide, output.accumulator)
    sums = torch.zeros((len(output.sizes), 6, 2), dtype=output.accumulator, device=output.device)
    for block in output.field_blocks():
        z, y = (side.field[block].to(wide) for side in (output, target))
        error = z - y
        for axis, (size, row) in enumerate(zip(output.sizes, sums, strict=True), 3):
            if size < LEAST_POINTS:
                continue
            width = max(size // EDGE, 1)
            parts = (
                torch.cat((error.narrow(axis, 0, width), error.narrow(axis, size - width, width)), axis),
                error.narrow(axis, width, size - 2 * width),
                *_jumps(y, axis),
                *_jumps(z, axis),
            )
            for place, part in zip(row, parts, strict=True):
                place[0] += part.abs().square().sum()
                place[1] += part.numel()
    return EdgeState(2 * output.count - output.finite_count - target.finite_count, sums)


def _jumps(field: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the differences between the first and the last point, and between neighbours."""
    size = field.shape[axis]
    return field.select(axis, 0) - field.select(axis, size - 1), field.diff(dim=axis)
