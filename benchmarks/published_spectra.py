"""What published codes make of the energy of plane waves; the table of docs/statistics.md.

    python benchmarks/published_spectra.py [--values]

Each code is given a plane wave. Listed is the share of its energy that the code reports in all bins together.
the_well and neuraloperator run as they are installed: `pip install --no-deps
the-well einops`. The formula of PDEBench, and the sum over rings that many notebooks have, are written here
anew from their descriptions. `--values` prints the energies by the_well with which
tests/statistics/test_published_spectra.py compares, as a table of Python.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import torch

from fno_telemetry.statistics import Activation, Layout
from fno_telemetry.statistics.accuracy import Accuracy
from fno_telemetry.statistics.subjects import Comparison

WAVES: Mapping[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "cos(x), 64²": ((64, 64), (1, 0)),
    "cos(x + y), 64²": ((64, 64), (1, 1)),
    "cos(x − y), 64²": ((64, 64), (1, -1)),
    "cos(28(x + y)), 64²": ((64, 64), (28, 28)),
    "cos(32x), 64²": ((64, 64), (32, 0)),
    "cos(3x + 4y), 65²": ((65, 65), (3, 4)),
    "cos(32x), 65²": ((65, 65), (32, 0)),
    "cos(5y), 64×48": ((64, 48), (0, 5)),
}


def wave(sizes: tuple[int, int], cycles: tuple[int, int]) -> np.ndarray:
    """Return cos(2 pi (k x / n + l y / m)), of phase zero so that Nyquist has a mean square too."""
    x, y = (2 * np.pi * k * np.arange(size) / size for k, size in zip(cycles, sizes, strict=True))
    return np.cos(x[:, None] + y[None, :])


def ours(field: np.ndarray) -> float:
    """The energies of `accuracy`, of a field compared with zero error: those of the target."""
    tensor = torch.from_numpy(field)[None, None]
    pair = Activation(tensor, Layout(0, 1, (2, 3))), Activation(tensor, Layout(0, 1, (2, 3)))
    statistic = Accuracy()
    bands = statistic.summarize(statistic.measure(Comparison(*pair)), None).accuracy_bands
    return sum(bands.target) / field.size


def the_well(field: np.ndarray) -> float:
    """Its binned spectral error, whose bins are angular frequencies per grid point."""
    edges = torch.arange(24, dtype=torch.float64) / 32 + 1e-4
    edges[0] = 0
    return float(well_bins(field[None], edges).sum())


def well_bins(fields: np.ndarray, edges: torch.Tensor) -> np.ndarray:
    """Return the mean square per bin of fields (N, *space), averaged over them."""
    from the_well.benchmark.metrics.spectral import binned_spectral_mse

    x = torch.from_numpy(fields)[..., None]
    meta = SimpleNamespace(n_spatial_dims=fields.ndim - 1)
    found = binned_spectral_mse.eval(x, torch.zeros_like(x), meta, bins=2 * math.pi * edges.to(x.dtype))
    return np.array([float(found[f"spectral_error_mse_per_bin_{i}"].mean()) for i in range(len(edges) - 1)])


def pdebench(field: np.ndarray) -> float:
    """The squares under the root of its fRMSE: the quadrant of frequencies from zero to below Nyquist.

    Those of which the wavenumber, rounded down, is at most the shorter half are summed by it.
    """
    power = abs(np.fft.fft2(field) / field.size) ** 2
    halves = [size // 2 for size in field.shape]
    places = itertools.product(*map(range, halves))
    return sum(power[i, j] for i, j in places if math.floor(math.hypot(i, j)) < min(halves))


def neuralop(field: np.ndarray) -> float:
    """`neuralop.utils.spectrum_2d`, which takes square fields."""
    from neuralop.utils import spectrum_2d

    size = field.shape[0]
    return float(spectrum_2d(torch.from_numpy(field).reshape(1, -1).float(), size).sum()) / field.size


def rings(field: np.ndarray) -> float:
    """The sum of many notebooks: the mean of |F|^2 over a ring times its area, up to half the width."""
    power = abs(np.fft.fft2(field) / field.size) ** 2
    cycles = [np.fft.fftfreq(size) * size for size in field.shape]
    radius = np.hypot(cycles[0][:, None], cycles[1][None, :])
    edges = np.arange(0.5, min(field.shape) // 2 + 1)
    sums = []
    for low, high in itertools.pairwise(edges):
        inside = power[(radius >= low) & (radius < high)]
        sums.append(inside.mean() * math.pi * (high**2 - low**2) if inside.size else 0.0)
    return sum(sums)


CODES: Mapping[str, Callable[[np.ndarray], float]] = {
    "`accuracy`, `spectrum`": ours,
    "the_well 1.2.0, `binned_spectral_mse`": the_well,
    "PDEBench, fRMSE": pdebench,
    "neuraloperator 2.0.0, `spectrum_2d`": neuralop,
    "mean over rings × area": rings,
}


def row(name: str) -> str:
    """Return a row of the table."""
    field = wave(*WAVES[name])
    cells = []
    for code in CODES.values():
        try:
            share = code(field) / np.mean(field**2)
        except RuntimeError:  # of sizes that do not fit
            cells.append("fails")
        else:
            cells.append(f"{share:.2f}" if abs(share - round(share)) > 1e-6 else f"{share:.0f}")
    return f"| {name} | {' | '.join(cells)} |"


def sample(sizes: tuple[int, ...]) -> np.ndarray:
    """Return two fields of irregular numbers in [0, 1) that need no generator."""
    index = np.arange(2 * math.prod(sizes), dtype=np.float64)
    return (index * index * 0.7548776662 % 1).reshape(2, *sizes)


def main() -> None:
    """Print the table, or the values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--values", action="store_true")
    if parser.parse_args().values:
        for sizes in ((33,), (16, 16), (15, 22), (8, 9, 10)):
            bands = math.ceil(math.sqrt(len(sizes)) * 16)
            edges = torch.arange(bands + 1, dtype=torch.float64) / 32 + 1e-4
            edges[0] = 0
            found = ", ".join(f"{value:.9g}" for value in well_bins(sample(sizes), edges))
            print(f"    {sizes}: [{found}],")
        sys.exit()
    print(f"| wave | {' | '.join(CODES)} |")
    print(f"|---|{'---:|' * len(CODES)}")
    for name in WAVES:
        print(row(name))


if __name__ == "__main__":
    main()
