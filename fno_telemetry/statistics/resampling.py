"""Fields on another grid, by their spectrum: the coefficients are cut off, or zeros are added to them.

A sum of plane waves below the Nyquist limits of both grids is the same sum on the other one [1]. The wave at
the Nyquist limit of the coarser grid has no sign: half of its coefficient is that of each sign on the finer
one, so that a field which is refined and made coarse again is what it was.

[1] The discrete Fourier transform of a field over one period; a field that does not go on periodically gets
ripples along its edges.
"""

from collections.abc import Sequence

import torch


def resample(fields: torch.Tensor, axes: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    """Return real or complex fields with so many points along these axes, in their own precision.

    Everything is computed in float64, in float32 where the device has nothing wider.
    """
    if fields.is_complex():
        real, imaginary = (resample(part, axes, sizes) for part in (fields.real, fields.imag))
        return torch.complex(real, imaginary)
    wide = fields.detach().to(torch.float32 if fields.device.type == "mps" else torch.float64)
    for axis, size in zip(axes, sizes, strict=True):
        wide = _resample_axis(wide, axis, size)
    return wide.to(fields.dtype)


def _resample_axis(fields: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    before = fields.shape[axis]
    if size == before:
        return fields
    coarser = min(before, size)
    kept = torch.fft.rfft(fields, dim=axis, norm="forward").narrow(axis, 0, coarser // 2 + 1).clone()
    if coarser % 2 == 0:
        # Of a real field the other half is the conjugate, which the inverse transform adds.
        kept.narrow(axis, coarser // 2, 1).mul_(0.5 if size > before else 2)
    field: torch.Tensor = torch.fft.irfft(kept, n=size, dim=axis, norm="forward")
    return field
