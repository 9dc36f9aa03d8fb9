"""Samples that are zero everywhere, such as frames of a detector that saw nothing."""

from dataclasses import dataclass

import numpy as np
import torch

from fno_telemetry.quantities import select
from fno_telemetry.statistics.activation import Activation
from fno_telemetry.statistics.contract import Empty, Known, Of, Summary, SummedState, Undefined


@dataclass(frozen=True)
class ZeroSampleState(SummedState):
    """The number of samples that are zero everywhere, and of all samples."""

    zero: torch.Tensor  # (), int64
    samples: int


class ZeroSamples:
    """The share of samples of which every element is exactly zero; one with a non-finite element is not."""

    name = "zero_samples"
    of: Of = "tensor"
    needs = ()
    quantities = select("zero_sample_fraction")

    def measure(self, activation: Activation) -> ZeroSampleState | Undefined | Empty:
        """Count the samples that are zero; Undefined without a sample axis, Empty without elements."""
        if activation.layout.sample is None:
            return Undefined("the tensor has no sample axis")
        if activation.count == 0:
            return Empty()
        samples = activation.samples
        if activation.on_host and activation.finite is None:
            rows = activation.row_sums
            zero = 0
            if not rows.low.all():
                filled = np.logical_or(rows.low, rows.high).reshape(samples, -1).any(1)
                zero = samples - int(np.count_nonzero(filled))
            return ZeroSampleState(torch.from_numpy(np.array(zero)), samples)
        # A non-finite element of `field` is 0.
        is_zero = activation.field == 0
        if activation.finite is not None:
            is_zero &= activation.finite
        return ZeroSampleState(is_zero.flatten(1).all(1).sum(), samples)

    def summarize(self, state: ZeroSampleState, known: Known) -> Summary:
        """Return the share."""
        return Summary({"zero_sample_fraction": int(state.zero) / state.samples})
