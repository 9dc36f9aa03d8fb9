"""What watching costs a training loop: between due steps, in a due step, and over a whole run.

    python benchmarks/training_cost.py [--networks fno,tiny] [--rounds 5] [--write]

Processor time with one thread. Each round runs one training step of every variant; the figure is the median
over the rounds of its time over that of the plain step next to it. The hook between due steps is timed alone,
since two equal loops differ by more than it costs: their difference is shown. `--write` puts the tables into
docs/overhead.md.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from measured_networks import NETWORKS, Subject, make

import fno_telemetry as ft

DOCUMENT = Path(__file__).parent.parent / "docs" / "overhead.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PLAIN, AGAIN = "a plain step", "a second plain step"
DUE = "a due step"
VARIANTS: Mapping[str, Mapping[str, object]] = {
    DUE: {},
    "without `update_to_weight`": {"updates": False},
    "without gradients": {"gradients": False, "updates": False},
    '`budget="light"`': {"budget": "light"},
}
HOOK_CALLS = 20_000


def main() -> None:
    """Measure, print, and write as told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", default="", help="parts of names, separated by commas; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_000, help="of the run whose memory is measured")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in NETWORKS if any(part in name for part in given.networks.split(","))]
    lines = [line for name in names for line in measure(name, given.rounds)]
    lines += measure_memory(given.steps)
    print("\n".join(lines))
    if given.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        text = "\n".join([BEGIN, "", f"Rounds: {given.rounds}.", "", *lines, END])
        DOCUMENT.write_text(before + text + after, encoding="utf-8")


def measure(name: str, rounds: int) -> list[str]:
    """Return the lines about one network."""
    subject = make(name)
    step = training_step(subject)
    first = ft.watch(subject.model)
    step()
    plan = first.plan
    first.close()
    actions: dict[str, Callable[[], object]] = {PLAIN: step, AGAIN: step}
    for variant, options in VARIANTS.items():
        actions[variant] = watched(subject, step, plan, options)
    times: dict[str, list[float]] = {variant: [] for variant in actions}
    for counted in range(-1, rounds):
        for variant, action in actions.items():
            started = time.process_time()
            action()
            if counted >= 0:
                times[variant].append(time.process_time() - started)
    plain = statistics.median(times[PLAIN])
    ratios = {
        variant: statistics.median(own / other for own, other in zip(taken, times[PLAIN], strict=True))
        for variant, taken in times.items()
    }
    hook = time_hook(subject)
    lines = [f"**{name}**: a training step takes {plain * 1e3:.1f} ms.", ""]
    lines += ["| | multiples of a training step |", "|---|---:|"]
    lines += [f"| {variant} | {ratio:.2f} |" for variant, ratio in ratios.items() if variant != PLAIN]
    lines.append(f"| a step that is not due | 1 + {hook / plain:.1e} |")
    for every, variant in ((100, DUE), (10, '`budget="light"`')):
        amortised = 1 + (ratios[variant] - 1) / every + hook / plain
        lines.append(f"| on average with `every={every}`, {variant} | {amortised:.3f} |")
    return [*lines, ""]


def measure_memory(steps: int) -> list[str]:
    """Return a line about the memory of a process after a tenth of a watched run, and at its end."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    step = training_step(Subject(model, torch.rand(16, 4)))
    resident = []
    with ft.watch(model, every=20) as watch:
        for number in range(steps):
            watch.step(number, loss=step())
            if number + 1 in (steps // 10, steps):
                resident.append(read_resident_mib())
    before, after = resident
    return [
        f"A small network, watched with `every=20`: the process takes {before:.1f} MiB after {steps // 10:,} "
        f"steps, and {after:.1f} MiB after {steps:,}, with {watch.recorded:,} records.",
    ]


def read_resident_mib() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def training_step(subject: Subject) -> Callable[[], torch.Tensor]:
    """Return a function that runs one training step and returns its loss."""
    model = subject.model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> torch.Tensor:
        output = model(subject.batch)
        loss: torch.Tensor = output.abs().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def watched(
    subject: Subject,
    step: Callable[[], torch.Tensor],
    plan: ft.MeasurementPlan | None,
    options: Mapping[str, object],
) -> Callable[[], None]:
    """Return a function that runs one due step; it fails if the step was not recorded."""

    def run() -> None:
        watch = ft.watch(subject.model, every=1, plan=plan, **options)  # type: ignore[arg-type]
        loss = step()
        watch.step(0, loss=loss)
        watch.close()
        if watch.problems or watch.recorded != 1:
            raise SystemExit(f"the step was not recorded: {watch.problems}")

    return run


def time_hook(subject: Subject) -> float:
    """Return the seconds that the hook and `step` take in a step that is not due."""
    watch = ft.watch(subject.model, every=None)
    [hook] = subject.model._forward_pre_hooks.values()
    started = time.process_time()
    for step in range(HOOK_CALLS):
        hook(subject.model, (subject.batch,), {})
        watch.step(step)
    seconds = time.process_time() - started
    watch.close()
    return seconds / HOOK_CALLS


if __name__ == "__main__":
    main()
