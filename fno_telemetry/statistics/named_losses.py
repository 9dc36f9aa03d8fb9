"""The losses that are known by name, of a prediction and its target, which have one shape."""

from collections.abc import Callable, Mapping

import torch

from fno_telemetry.errors import OptionError


def mean_square(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean of |prediction - target|^2 over all elements, (B, *S) real or complex."""
    squares = _subtract(prediction, target).square()
    return torch.mean(squares.sum(-1) if target.is_complex() else squares)


def mean_relative_norm(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean over samples of ‖prediction - target‖ / ‖target‖, (B, *S) real or complex.

    OptionError for a sample of which the target is zero.
    """
    error = _subtract(prediction, target)
    samples = len(target) if target.ndim else 1
    size = torch.linalg.vector_norm(_as_real(target).reshape(samples, -1), dim=1)
    if (zeros := int((size == 0).sum())) > 0:
        raise OptionError(
            f"`loss` 'relative_l2' divides by the norm of the target, which is zero in {zeros} of {samples} "
            "samples of a batch; leave these samples out, or take `loss='mse'`"
        )
    return torch.mean(torch.linalg.vector_norm(error.reshape(samples, -1), dim=1) / size)


NAMED_LOSSES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": mean_square,
    "relative_l2": mean_relative_norm,
}
"""The losses by the names that users type."""


def _subtract(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the difference as real numbers, in float32 or wider."""
    return _as_real(prediction) - _as_real(target.to(prediction.device))


def _as_real(values: torch.Tensor) -> torch.Tensor:
    """Return real numbers of float32 or wider; real and imaginary parts along a last axis of complex ones."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return torch.view_as_real(wide.resolve_conj()) if wide.is_complex() else wide
