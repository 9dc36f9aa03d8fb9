"""Whether the axes of an input, or of an output, are in the order of those of its target.

A part of nearly every target is linear in the input, wave by wave: then each coefficient of the one goes with
that of the other over the samples, whatever the operator makes of its size and phase [1]. It does not if one
of them is flipped, or has rows for columns.

[1] Bendat, Piersol: Random Data, chapter 6: the ordinary coherence function, and its bias 1 / (samples - 1).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from fno_telemetry.quantities import select
from fno_telemetry.records import OrderCoherence
from fno_telemetry.statistics.contract import (
    Empty,
    Known,
    MergedBy,
    Of,
    Summary,
    SummedState,
    Undefined,
    keys_of,
    merge_states,
)
from fno_telemetry.statistics.low_frequencies import LowFrequencies, Order, find_low_frequencies, list_orders
from fno_telemetry.statistics.subjects import Comparison

LEAST_SAMPLES = 4
LEAST_ENERGY = 1e-4
"""Share of the energy, without that of means, from which on a wave counts."""


@dataclass(frozen=True)
class CrossSpectra(SummedState):
    """Sums over samples of low coefficients x and y, of their energies, and of conj(x) y by order of x."""

    sizes: Annotated[tuple[int, ...], MergedBy(lambda first, second: first, "same")]
    real: Annotated[bool, MergedBy(lambda first, second: first and second, "same")]
    samples: torch.Tensor
    x: torch.Tensor  # (channels of x, *frequencies)
    y: torch.Tensor  # (channels of y, *frequencies)
    x_energy: torch.Tensor
    y_energy: torch.Tensor
    products: torch.Tensor  # (orders, channels of x, channels of y, *frequencies)

    def merge(self, other: Any) -> Any:
        """Return the sums over both data sets; Undefined for fields of other sizes or channels."""
        if self.sizes != other.sizes or self.products.shape != other.products.shape:
            return Undefined("the size of the fields changed between batches")
        return super().merge(other)


@dataclass(frozen=True)
class FieldOrderState(SummedState):
    """What is known of the input and of the output, each with the target."""

    nonfinite: torch.Tensor  # elements of output and target
    of_input: Annotated[CrossSpectra | Undefined, MergedBy(merge_states, "state")]
    of_output: Annotated[CrossSpectra | Undefined, MergedBy(merge_states, "state")]


class FieldOrder:
    """The coherence of input and target, and of output and target, as they are and in other orders."""

    name = "field_order"
    of: Of = "comparison"
    needs = ()
    quantities = select("input_coherence", "output_coherence", "input_noise", "output_noise")

    def measure(self, subject: Comparison) -> FieldOrderState | Empty:
        """Measure the cross-spectra of low frequencies."""
        output, target = subject.output, subject.target
        if output.count == 0:
            return Empty()
        y = find_low_frequencies(target)
        return FieldOrderState(
            nonfinite=2 * output.count - output.finite_count - target.finite_count,
            of_input=_cross(subject.entered, y, "input"),
            of_output=_cross(find_low_frequencies(output), y, "output"),
        )

    def summarize(self, state: FieldOrderState, known: Known) -> Summary:
        """Return the coherence of the fields as they are, and the order in which it is largest."""
        sides = (_Side.of(state.of_input), _Side.of(state.of_output))
        if count := int(state.nonfinite):
            reason = f"{count:,} elements of the output and the target are not finite"
            sides = (_Side(reason), _Side(reason))
        values = dict(
            zip(keys_of(self), (*(s.as_given for s in sides), *(s.noise for s in sides)), strict=True)
        )
        reasons = dict(zip(keys_of(self), [side.reason for side in sides] * 2, strict=True))
        orders = {order for side in sides for order in (side.best,) if order is not None}
        listed = tuple(
            OrderCoherence(order.axes, order.flipped, *(side.coherences.get(order) for side in sides))
            for order in sorted(orders, key=lambda order: (order.axes, order.flipped))
        )
        return Summary(
            values,
            {name: reason for name, reason in reasons.items() if reason is not None},
            accuracy_orders=listed or None,
        )


class _Side:
    """The coherences of one of the two with the target, or why there are none."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        self.coherences: dict[Order, float] = {}
        self.as_given: float | None = None
        self.noise: float | None = None
        self.best: Order | None = None  # other than as given

    @classmethod
    def of(cls, state: CrossSpectra | Undefined) -> "_Side":
        if isinstance(state, Undefined):
            return cls(state.reason)
        samples = int(state.samples)
        if samples < LEAST_SAMPLES:
            return cls(f"there are fewer than {LEAST_SAMPLES} samples")
        if not all(torch.isfinite(one).all() for one in (state.x_energy, state.y_energy, state.products)):
            return cls("the squares overflow float64")
        y_energy = _around_means(state.y_energy, state.y, samples)
        x_energy = _around_means(state.x_energy, state.x, samples)
        side, bias, most = cls(), 1 / (samples - 1), 0
        for order, products in zip(list_orders(state.sizes), state.products, strict=True):
            x, energy = order.apply(state.x), order.apply(x_energy)
            # The means over the samples are alike wherever all samples are: they say nothing of pairs.
            cross = products - x.conj()[:, None] * state.y[None] / samples
            pairs = energy[:, None] * y_energy[None]
            counts = (_counts(energy)[:, None] & _counts(y_energy)[None]).flatten(2)
            ratio = (cross.abs().square() / torch.where(pairs > 0, pairs, 1)).flatten(2)
            waves = counts.sum(2)
            found = torch.where(counts, ratio, 0).sum(2) / waves.clamp_min(1)
            most = max(most, int(waves.max()))
            side.coherences[order] = float((found.max() - bias) / (1 - bias))
        if not most:
            return cls("the fields do not differ between samples at low frequencies")
        # Of real fields, each wave is there twice.
        side.noise = bias / math.sqrt(most / 2 if state.real else most)
        side.as_given = side.coherences[next(order for order in side.coherences if order.is_as_given)]
        others = [order for order in side.coherences if not order.is_as_given]
        side.best = max(others, key=side.coherences.__getitem__)
        return side


def _cross(x: LowFrequencies | None, y: LowFrequencies | None, what: str) -> CrossSpectra | Undefined:
    if x is None or y is None:
        return Undefined(f"the {what} and the target do not both have samples and spatial axes")
    if x.sizes != y.sizes or len(x.values) != len(y.values):
        return Undefined(f"the {what} has other samples, or other sizes in space, than the target")
    wide = torch.promote_types(x.values.dtype, y.values.dtype)
    before, after = x.values.to(wide), y.values.to(wide)
    orders = [order.apply(before).conj() for order in list_orders(x.sizes)]
    products = torch.stack([torch.einsum("nc...,nd...->cd...", one, after) for one in orders])
    return CrossSpectra(
        sizes=x.sizes,
        real=x.real and y.real,
        samples=torch.full((), len(before), dtype=torch.int64, device=before.device),
        x=before.sum(0),
        y=after.sum(0),
        x_energy=before.abs().square().sum(0),
        y_energy=after.abs().square().sum(0),
        products=products,
    )


def _around_means(energy: torch.Tensor, sums: torch.Tensor, samples: int) -> torch.Tensor:
    """Return energies (channels, *frequencies) around the means over samples; zero for means of fields."""
    found = (energy - sums.abs().square() / samples).clamp_min(0)
    found.flatten(1)[:, 0] = 0
    # What is left of equal fields is rounding.
    return torch.where(found > 1e-9 * energy, found, 0)


def _counts(energy: torch.Tensor) -> torch.Tensor:
    total = energy.flatten(1).sum(1).reshape(-1, *(1 for _ in energy.shape[1:]))
    return (energy > 0) & (energy >= LEAST_ENERGY * total)
