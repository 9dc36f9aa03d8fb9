"""How the time of a capture grows with the batch size, the channels, the layers and the number of batches.

    python benchmarks/capture_growth.py [--runs 3] [--write]

For each size the script measures the plain forwards and the capture in turns, in several rounds. It prints
the medians over the rounds. All times are processor time with one thread.

`--write` draws the time of the capture over the time of the forwards into docs/performance.svg. If the points
lie on a straight line, a capture takes a fixed time and, on top of it, the same number of forwards at every
size. The slope of the line is that number.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

import fno_telemetry as ft
from fno_telemetry import plugins

PICTURE = Path(__file__).parents[1] / "docs" / "performance.svg"


class Size(NamedTuple):
    """A network of FNO blocks on fields of 64 x 64 points, and batches for it."""

    batch: int = 4
    channels: int = 16
    layers: int = 4
    batches: int = 1


SIZES: Mapping[str, Sequence[Size]] = {
    "batch": [Size(batch=n) for n in (1, 2, 4, 8, 16)],
    "channels": [Size(channels=n) for n in (4, 8, 16, 32, 64)],
    "layers": [Size(layers=n) for n in (1, 2, 4, 8, 12)],
    "batches": [Size(batches=n) for n in (1, 2, 3, 4, 6)],
}


class Point(NamedTuple):
    """Milliseconds of the forwards and of the capture of one size."""

    size: Size
    forward: float
    capture: float


def main() -> int:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    figures = {name: [measure(size, given.runs) for size in sizes] for name, sizes in SIZES.items()}
    for name, points in figures.items():
        slope, fixed, spread = fit(points)
        print(f"{name:9s} {slope:5.2f} forwards and {fixed:4.0f} ms; farthest from the line {spread:.0%}")
        for point in points:
            print(f"{getattr(point.size, name):9d} {point.forward:8.1f} ms {point.capture:8.1f} ms")
    if given.write:
        draw(figures)
    return 0


def measure(size: Size, runs: int) -> Point:
    """Return the milliseconds of one size."""
    torch.manual_seed(0)
    architecture = plugins.load("architectures", "fno")
    model = architecture.build(
        C=1, hidden_channels=size.channels, fno_blocks=size.layers, cnn_blocks=1
    ).eval()
    batches = [torch.rand(size.batch, 1, 64, 64) for _ in range(size.batches)]
    forwards, captures = [], []
    with torch.no_grad():
        for counted in range(-1, runs):
            forward = spend(lambda: [model(batch) for batch in batches])
            capture = spend(lambda: ft.capture(model, batches))
            if counted >= 0:
                forwards.append(forward)
                captures.append(capture)
    return Point(size, statistics.median(forwards), statistics.median(captures))


def spend(action: Callable[[], object]) -> float:
    """Return the processor time of an action in milliseconds."""
    start = time.process_time()
    action()
    return (time.process_time() - start) * 1e3


def fit(points: Sequence[Point]) -> tuple[float, float, float]:
    """Return slope and offset of the line through the points, and the largest distance from it as a share."""
    slope, offset = statistics.linear_regression([p.forward for p in points], [p.capture for p in points])
    spread = max(abs(p.capture - slope * p.forward - offset) / p.capture for p in points)
    return slope, offset, spread


def draw(figures: Mapping[str, Sequence[Point]]) -> None:
    """Draw capture over forward, one panel for each way to grow."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "performance", "font.size": 9, "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(figures), figsize=(11, 3), layout="constrained")
    for panel, (name, points) in zip(panels, figures.items(), strict=True):
        slope, offset, _ = fit(points)
        ends = [0.0, max(point.forward for point in points)]
        panel.plot(ends, [offset + slope * end for end in ends], color="0.6", linewidth=1)
        panel.plot(
            [p.forward for p in points], [p.capture for p in points], "o", color="#0b6e99", markersize=4
        )
        for point in points:
            where = (point.forward, point.capture)
            label = str(getattr(point.size, name))
            panel.annotate(label, where, xytext=(4, -9), textcoords="offset points", fontsize=8)
        panel.set(
            title=f"{name}\n{slope:.1f} forwards + {offset:.0f} ms",
            xlabel="forward, ms",
            ylabel="capture, ms",
        )
        # Room for the labels, which stand to the right of their points.
        panel.set(xlim=(0, 1.15 * ends[1]), ylim=(0, None))
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
