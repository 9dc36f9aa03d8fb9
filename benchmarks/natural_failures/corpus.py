"""The folder of runs: makes those that are missing, two at once, and reads what is there."""

import json
import os
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.natural_failures.controls import CONTROLS
from benchmarks.natural_failures.kinds.known import KINDS
from benchmarks.natural_failures.runs import Run
from benchmarks.natural_failures.setup import Setup
from benchmarks.natural_failures.tasks.known import TASKS, load_samples
from benchmarks.natural_failures.training import capture_again, train

FACTS = "run.json"
HARM = 1.25  # test error over that of the plain training


@dataclass(frozen=True)
class Made:
    """A run that was made, with what is known of it."""

    run: Run
    folder: Path
    facts: dict[str, Any]

    @property
    def error(self) -> float:
        """The test error; infinite where it is not finite."""
        found = self.facts["test_error"]
        return float("inf") if found is None else float(found)


def make_missing(runs: Sequence[Run], folder: Path, processes: int, *, again: bool = False) -> None:
    """Make the runs that are missing, plain ones first; with `again` only capture again the others."""
    plain = [run for run in runs if run == run.plain]
    rest = [run for run in runs if run != run.plain]
    for some in (plain, rest):
        wanted = [run for run in some if is_made(run, folder) == again]
        with ProcessPoolExecutor(processes) as pool:
            jobs = [pool.submit(make, run, folder, again) for run in wanted]
            for number, job in enumerate(jobs, 1):
                print(f"{number} of {len(jobs)}: {job.result()}", flush=True)


def make(run: Run, folder: Path, again: bool) -> str:
    """Train and capture one run, or only capture it again; return a line about it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # neuraloperator's own, of what it does with complex numbers
    started = time.perf_counter()
    of_run = folder / run.name
    of_run.mkdir(parents=True, exist_ok=True)
    try:
        setup, places = set_up(run, folder)
        facts = json.loads((of_run / FACTS).read_text()) if again else train(setup, of_run)
        facts["numbers"] = capture_again(setup, of_run)
        facts |= {**asdict(run), "seconds": time.perf_counter() - started}
        if run.fails:
            facts |= {"cause": KINDS[run.what].cause, "places": places}
    except Exception:  # noqa: BLE001 - one run that cannot be made must not cost the others
        return f"{run.name}: FAILED\n{traceback.format_exc()}"
    _write(of_run / FACTS, facts)
    return f"{run.name}: test error {facts['test_error']}, {facts['seconds']:.1f} s"


def set_up(run: Run, folder: Path) -> tuple[Setup, Sequence[str]]:
    """Return the training of a run, and the places where its failure is."""
    task = TASKS[run.task]
    setup = Setup(task, run.family, run.seed, *load_samples(task, run.seed, folder))
    weights = folder / run.plain.name / "trained.pt"
    setup.facts["healthy_weights"] = lambda: torch.load(weights, weights_only=True)
    if run.fails:
        return setup, KINDS[run.what].apply(setup)
    CONTROLS[run.what].apply(setup)
    return setup, ()


def is_made(run: Run, folder: Path) -> bool:
    """Return whether a run is there, whole."""
    return (folder / run.name / FACTS).exists()


def read(runs: Iterable[Run], folder: Path) -> list[Made]:
    """Return the runs that are there."""
    return [
        Made(run, folder / run.name, json.loads((folder / run.name / FACTS).read_text()))
        for run in runs
        if is_made(run, folder)
    ]


def harm_of(made: Made, plain: Made) -> float:
    """Return the test error over that of the plain training; infinite where it is not finite."""
    return made.error / plain.error


def _write(path: Path, facts: dict[str, Any]) -> None:
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    beside.replace(path)
