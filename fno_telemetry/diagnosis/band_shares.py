"""Shares of a spectrum that the rules about frequencies compare."""

import math

from fno_telemetry.records import Spectrum


def share_above(spectrum: Spectrum | None, frequency: float) -> float | None:
    """Return the share of the energy, without the mean, in radial bands that begin at a frequency or above.

    The frequency is in cycles per grid point. None without a spectrum.
    """
    if spectrum is None:
        return None
    starts = zip(spectrum.band_edges, spectrum.bands, strict=False)
    return math.fsum(share for start, share in starts if start >= frequency)
