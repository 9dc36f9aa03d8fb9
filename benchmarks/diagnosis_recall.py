"""Recall, place and false alarms of `diagnose` on planted faults; the tables of docs/diagnosis.md.

    python benchmarks/diagnosis_recall.py [--seeds 0,1,2] [--families fno,TFNO] [--write docs/diagnosis.md]

Every fault of tests/support/planted_faults.py is planted into a trained network of each family, at two
strengths and at a depth that turns with the seed. Thresholds were chosen on the even seeds (and 1, 3, 5); the
odd ones judge them.
"""

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "examples")]

from support import fault_harness  # noqa: E402 - the tests are no package that is installed

FAMILIES = ("fno", "hybrid", "stable_hybrid", "FNO", "TFNO", "UNO")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    """Measure, print the tables, and put them into the document when told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", default="0,2,4,7,9,13")
    parser.add_argument("--families", default=None)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a document with the two marks to put the tables between")
    given = parser.parse_args()
    families = given.families.split(",") if given.families else FAMILIES
    tasks = [(family, int(seed)) for seed in given.seeds.split(",") for family in families]
    outcomes: list[Any] = []
    alarms: list[Any] = []
    mild: list[Any] = []
    with ProcessPoolExecutor(given.processes) as pool:
        for (family, seed), found in zip(tasks, pool.map(measured, tasks), strict=True):
            for kept, new in zip((outcomes, alarms, mild), found, strict=True):
                kept += new
            print(f"seed {seed}, {family}: done", flush=True)
    for outcome in outcomes:
        if outcome.counts and not (outcome.found and outcome.right):
            print(f"missed: {outcome}")
    for alarm in alarms:
        if alarm.finding:
            print(f"false alarm: {alarm}")
    text = "\n".join([*tables(outcomes, alarms), "", *mild_table(mild)])
    print(text)
    if given.write:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        given.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def measured(task: tuple[str, int]) -> tuple[list[Any], list[Any], list[tuple[Any, Any]]]:
    """Return the outcomes, alarms and mild outcomes of one family and seed, as plain objects."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # neuraloperator's own, of what it does with complex numbers

    def plain(found: Any) -> Any:
        # What a program that was run by its path defines cannot be sent to another process.
        return SimpleNamespace(**dataclasses.asdict(found), counts=getattr(found, "counts", None))

    return (
        [plain(one) for one in (*fault_harness.outcomes(*task), *fault_harness.spikes(*task))],
        [plain(one) for one in fault_harness.alarms(*task)],
        [(plain(one), plain(other)) for one, other in fault_harness.milder(*task)],
    )


def tables(outcomes: Sequence[Any], alarms: Sequence[Any]) -> Iterable[str]:
    """Yield Markdown: recall by fault and by family, for both halves of the seeds, and the false alarms."""
    yield from table("fault (rule)", outcomes, lambda one: f"{one.fault} (`{one.rule}`)")
    yield ""
    yield from table("family", outcomes, lambda one: one.family)
    yield ""
    yield "| healthy networks | captures | with a warning |"
    yield "|---|---:|---:|"
    for half, what in ((0, "even seeds"), (1, "odd seeds")):
        of_half = [alarm for alarm in alarms if alarm.seed % 2 == half]
        captures = {(a.family, a.seed, a.what) for a in of_half}
        warned = {(a.family, a.seed, a.what) for a in of_half if a.finding}
        yield f"| {what} | {len(captures)} | {len(warned)} |"


def table(heading: str, outcomes: Sequence[Any], key: Callable[[Any], str]) -> Iterable[str]:
    """Yield one table: planted, counted, found and right-layer-first, chosen on even seeds, judged on odd."""
    yield f"| {heading} | planted | counted | found, even | found, odd | right layer first, odd |"
    yield "|---|---:|---:|---:|---:|---:|"
    groups: dict[str, list[Any]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    for name, members in [*groups.items(), ("**all**", list(outcomes))]:
        counted = [one for one in members if one.counts]
        even, odd = ([one for one in counted if one.seed % 2 == half] for half in (0, 1))
        found = [share(half, lambda one: one.found) for half in (even, odd)]
        right = share(odd, lambda one: one.right)
        yield f"| {name} | {len(members)} | {len(counted)} | {found[0]} | {found[1]} | {right} |"


def mild_table(pairs: Sequence[tuple[Any, Any]]) -> Iterable[str]:
    """Yield how many mild faults have a warning at the right place, without and with a baseline."""
    yield "| mild fault | strength | planted | counted | found | found with `--baseline` |"
    yield "|---|---:|---:|---:|---:|---:|"
    groups: dict[tuple[str, float], list[tuple[Any, Any]]] = {}
    for pair in pairs:
        groups.setdefault((pair[0].fault, pair[0].strength), []).append(pair)
    for (name, strength), members in groups.items():
        yield mild_row(name, f"{strength:g}", members)
    yield mild_row("**all**", "", pairs)


def mild_row(name: str, strength: str, pairs: Sequence[tuple[Any, Any]]) -> str:
    """Return one row."""
    counted = [pair for pair in pairs if pair[0].counts]
    found = [share([pair[which] for pair in counted], lambda one: one.found) for which in (0, 1)]
    return f"| {name} | {strength} | {len(pairs)} | {len(counted)} | {found[0]} | {found[1]} |"


def share(members: Sequence[Any], says: Callable[[Any], bool]) -> str:
    """Return "11 of 12", with percent where there are many."""
    if not members:
        return "–"
    number = sum(map(says, members))
    percent = f" ({100 * number / len(members):.1f} %)" if len(members) > 100 else ""
    return f"{number} of {len(members)}{percent}"


if __name__ == "__main__":
    main()
