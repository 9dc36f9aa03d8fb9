"""What a capture costs: capture time over forward time, side by side, and the share of each statistic.

Ratios from interleaved runs are printed, because absolute times on a shared machine mean little: of the
median wall time, and of the least processor time, which other programs disturb least.

Usage: python benchmarks/capture_cost.py [--architecture fno] [--batch 8] [--size 64] [--runs 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import fno_telemetry as ft
from fno_telemetry import plugins


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor time; the latter adds up over threads."""
    start, used = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - used


def earlier_script(model: torch.nn.Module, batch: torch.Tensor) -> None:
    """The cost that this tool replaces: three torch.quantile calls of |x| in a hook on every leaf."""

    def measure(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            magnitude = output.detach().abs().flatten()[: 2**24 - 1]
            for q in (0.5, 0.95, 0.99):
                torch.quantile(magnitude, q)

    handles = [m.register_forward_hook(measure) for m in model.modules() if not list(m.children())]
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--architecture", default="fno")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    architecture = plugins.load("architectures", given.architecture)
    torch.manual_seed(0)
    model = architecture.build(**architecture.defaults(1, given.size)).eval()
    batch = torch.rand(given.batch, 1, given.size, given.size)
    available = {name: plugins.load("statistics", name) for name in plugins.names("statistics")}

    variants: dict[str, Callable[[], object]] = {
        "forward": lambda: model(batch),
        "capture, all statistics": lambda: ft.capture(model, batch),
        "capture, no statistic": lambda: ft.capture(model, batch, statistics=[]),
        "forward with three quantiles in each hook": lambda: earlier_script(model, batch),
    }
    for name, statistic in available.items():
        chosen = [statistic()]
        variants[f"capture, {name} only"] = lambda chosen=chosen: ft.capture(model, batch, statistics=chosen)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    with torch.no_grad():
        for action in variants.values():
            action()
        for _ in range(given.runs):
            for name, action in variants.items():
                # The slow old way needs no more runs to show its size.
                if "quantiles" not in name or len(times[name]) < 2:
                    times[name].append(seconds(action))
    wall = statistics.median(taken[0] for taken in times["forward"])
    used = min(taken[1] for taken in times["forward"])
    print(
        f"{given.architecture}, batch {given.batch}, {given.size} x {given.size}, "
        f"{torch.get_num_threads()} threads; forward {wall * 1e3:.0f} ms; times as multiples of the forward's"
    )
    print(f"  {'':45s}   wall   processor")
    for name, taken in times.items():
        walls, processor = [one[0] / wall for one in taken], min(one[1] for one in taken) / used
        print(
            f"  {name:45s} {statistics.median(walls):6.2f}  {processor:6.2f}   "
            f"(wall from {min(walls):.2f} to {max(walls):.2f})"
        )


if __name__ == "__main__":
    main()
