"""What a capture costs, as multiples of the forward of the same network, and what others cost.

    python benchmarks/capture_cost.py [--networks fno,tiny] [--runs 5] [--write] [--check]

All figures are processor time with one thread. Each round runs every variant once, next to a plain forward;
the figure is the median over the rounds of time over the forward's, since other programs on a machine disturb
single rounds. `--write` puts the tables into docs/performance.md and the figures into benchmarks/landed.json;
`--check` compares with those figures instead, and fails if a ratio has grown by more than a quarter.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import capture_memory
import torch
from alternatives import installed, measure_apart
from measured_networks import NETWORKS, Subject, make

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.statistics import kernels
from fno_telemetry.statistics.kernels.choice import VARIABLE

HERE = Path(__file__).parent
LANDED, DOCUMENT = HERE / "landed.json", HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SLACK = 1.25
FORWARD = "forward"
COMPILED, TORCH = "compiled loops", "torch alone"
# A user with numba gets compiled loops for large tensors only, so this variant does not insist on them.
KERNELS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    COMPILED: nullcontext,
    TORCH: partial(kernels.using, "torch"),
}
ALL = "capture, everything, {}"
PLANNED = "the same with a plan, {}"
LIGHT = "capture --budget light, {}"
THREE = "capture of three batches, {}"
NONE = "no statistic, with a plan"
PLAN = "making the plan"
CHECKED = (*(name.format(kind) for name in (ALL, LIGHT) for kind in KERNELS), NONE)


def main() -> int:
    """Measure, print, and write or check as told; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", default="", help="parts of names, separated by commas; all by default")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    if given.write and given.networks:
        parser.error("--write keeps the figures of all networks: leave out --networks")
    require_default_kernels()
    torch.set_num_threads(1)
    names = [name for name in NETWORKS if any(part in name for part in given.networks.split(","))]
    figures = {name: measure(name, given.runs, brief=given.check) for name in names}
    for name, found in figures.items():
        print("\n".join(table(name, found)))
    if given.write:
        write(figures, given.runs)
    return check(figures) if given.check else 0


def require_default_kernels() -> None:
    """Exit with one line if a capture would not choose its loops as it does with the extra `fast`."""
    if os.environ.get(VARIABLE):
        sys.exit(f"{VARIABLE} is set, and {COMPILED!r} is to be what a capture chooses by itself: unset it")
    if find_spec("numba") is None:
        sys.exit(f"numba is not installed, and {COMPILED!r} needs it: pip install 'fno-telemetry[fast]'")


def measure(name: str, runs: int, brief: bool) -> dict[str, Any]:
    """Return all figures of one network: ratios by variant, and milliseconds."""
    subject = make(name)
    plan = ft.plan(subject.model, subject.batch)
    variants = captures(subject, plan)
    if not brief:
        for statistic in plugins.names("statistics"):
            chosen = [plugins.load("statistics", statistic)()]
            variants[f"{statistic} only, with a plan"] = lambda chosen=chosen: ft.capture(
                subject.model, subject.batch, statistics=chosen, plan=plan
            )
        variants |= installed(subject)
    times = interleaved({FORWARD: lambda: subject.model(subject.batch)} | variants, runs)
    ratios = {
        variant: statistics.median(own / forward for own, forward in zip(taken, times[FORWARD], strict=True))
        for variant, taken in times.items()
    }
    typical = {variant: statistics.median(taken) * 1e3 for variant, taken in times.items()}
    return {
        "forward_ms": typical[FORWARD],
        "capture_ms": [typical[ALL.format(kind)] for kind in KERNELS],
        "further_batch_ms": [
            further_batch(times[ALL.format(kind)], times[THREE.format(kind)]) * 1e3 for kind in KERNELS
        ],
        "ratios": ratios,
        "apart": {} if brief else measure_apart(name, runs),
        "memory_mib": None if brief else capture_memory.measure(name),
    }


def further_batch(of_one: Sequence[float], of_three: Sequence[float]) -> float:
    """Return the median over the rounds of what each further batch took, in the unit of the times."""
    return statistics.median((three - one) / 2 for one, three in zip(of_one, of_three, strict=True))


def captures(subject: Subject, plan: ft.MeasurementPlan) -> dict[str, Callable[[], object]]:
    """Return the captures that every check runs."""
    model, batch = subject
    variants: dict[str, Callable[[], object]] = {
        PLAN: lambda: ft.plan(model, batch),
        NONE: lambda: ft.capture(model, batch, statistics=[], plan=plan),
    }
    for kind, chosen in KERNELS.items():
        variants |= {
            ALL.format(kind): _with(chosen, lambda: ft.capture(model, batch)),
            PLANNED.format(kind): _with(chosen, lambda: ft.capture(model, batch, plan=plan)),
            LIGHT.format(kind): _with(chosen, lambda: ft.capture(model, batch, budget="light")),
            THREE.format(kind): _with(chosen, lambda: ft.capture(model, [batch] * 3)),
        }
    return variants


def _with(
    chosen: Callable[[], AbstractContextManager[object]], action: Callable[[], object]
) -> Callable[[], object]:
    def run() -> None:
        with chosen():
            action()

    return run


def interleaved(variants: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Return the processor seconds of each variant in each round, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    with torch.no_grad():
        for counted in range(-1, runs):
            for name, action in variants.items():
                start = time.process_time()
                action()
                if counted >= 0:
                    times[name].append(time.process_time() - start)
    return times


def table(name: str, found: Mapping[str, Any]) -> list[str]:
    """Return the lines that show the figures of one network."""
    capture, further = (
        " / ".join(f"{one:.0f}" for one in found[which]) for which in ("capture_ms", "further_batch_ms")
    )
    lines = [
        f"**{name}**: forward {found['forward_ms']:.1f} ms; a capture of one batch {capture} ms, each "
        f"further batch {further} ms ({' / '.join(KERNELS)}).",
    ]
    if memory := found.get("memory_mib"):
        lines[0] += (
            f" Memory: {memory['forward']:.0f} MiB for the forward, {memory['capture']:.0f} for the "
            f"capture, of which {memory['mean_fields']:.0f} are mean fields; the largest output takes "
            f"{memory['largest']:.0f}."
        )
    lines += ["", "| | multiples of the forward |", "|---|---|"]
    lines += [
        f"| {variant} | {ratio:.2f} |" for variant, ratio in found["ratios"].items() if variant != FORWARD
    ]
    lines += [
        f"| {variant} | {'not installed' if ratio is None else format(ratio, '.2f')} |"
        for variant, ratio in found["apart"].items()
    ]
    return [*lines, ""]


def write(figures: Mapping[str, Any], runs: int) -> None:
    """Put the tables into the document and keep the figures for the next check."""
    LANDED.write_text(json.dumps(figures, indent=1) + "\n")
    lines = [f"{surroundings()} Rounds: {runs}.", ""]
    for name, found in figures.items():
        lines += table(name, found)
    text = DOCUMENT.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCUMENT.write_text(text[:start] + "\n\n" + "\n".join(lines) + "\n" + text[end:])


def surroundings() -> str:
    """Return a sentence that says what the figures were measured with."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "numba", "neuraloperator"))
    return (
        f"Measured with {packages}, Python {platform.python_version()}, on {platform.machine()}; "
        "processor time, one thread."
    )


def check(figures: Mapping[str, Any]) -> int:
    """Print how many forwards a capture takes now, and took last time; return 1 if one has become slower."""
    landed, failed = json.loads(LANDED.read_text()), 0
    for name, found in figures.items():
        for variant in CHECKED:
            now, before = found["ratios"][variant], landed[name]["ratios"][variant]
            grown = now > SLACK * before
            failed |= grown
            print(f"{'slower' if grown else 'ok':7s}{now:7.2f} (last time: {before:.2f})  {variant}: {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
