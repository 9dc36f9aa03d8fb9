"""Kills captures into one folder, starts them in pairs and fours at once, and checks all that they leave.

    python benchmarks/captures_at_once.py [--kills 100] [--pairs 20] [--seed 0]

Every capture is a process of its own, forked from this one, which has imported what takes long. Exit code 1,
with a line for each promise that was broken: nothing torn, lost, mixed or left lying.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import fno_telemetry as ft
from fno_telemetry import keys
from fno_telemetry.sinks import select_overview
from fno_telemetry_cli.app import main as command

NETWORK = ("--set", "hidden_channels=4", "--set", "modes=3", "--set", "fno_blocks=1", "--set", "cnn_blocks=1")
STEPS = (100, 200, 300, 400)
PRECISION = 1e-6  # TensorBoard's curves are float32
broken: list[str] = []


def main() -> int:
    """Run both checks in a temporary folder; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.set_num_threads(1)
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_inputs()
        kill_captures(options.kills)
        for number in range(options.pairs):
            pair(number)
            pair(number, "--force")
            array(number)
        os.chdir("/")
    print(*broken, f"{len(broken)} promises broken", sep="\n")
    return int(bool(broken))


def make_inputs() -> None:
    """Write samples and four checkpoints into the working folder."""
    np.savez("train.npz", diffraction=np.random.default_rng(0).random((2, 16, 16), dtype=np.float32))
    for step in STEPS:
        torch.manual_seed(step)
        network = build()
        torch.save({"state_dict": network.state_dict(), "global_step": step}, f"s{step}.ckpt")


def build() -> torch.nn.Module:
    """Return the network of NETWORK."""
    from fno_telemetry import plugins

    network = plugins.load("architectures", "fno").build(
        C=1, hidden_channels=4, modes=3, fno_blocks=1, cnn_blocks=1
    )
    assert isinstance(network, torch.nn.Module)
    return network


def start(folder: str, *arguments: str) -> int:
    """Start a capture into the folder; return its process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path("captures.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        command(["capture", "-q", "--input", "train.npz", "--output", folder, *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """Return the exit code of the process, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill_captures(kills: int) -> None:
    """Kill captures of a series at any time, every fifth by SIGTERM; check the folder and a later capture."""
    series = ("--checkpoint", "s*.ckpt", "--force", "--sink", "json,tensorboard", "--diagnose")
    took = time.monotonic()
    expect("the first capture", wait(start("killed", *series)), 0)
    took = time.monotonic() - took
    check("after the first", "killed")
    for number in range(kills):
        with_wandb = ("--sink", "wandb") if number % 10 == 0 else ()
        process = start("killed", *series, *with_wandb)
        time.sleep(random.uniform(0, (3 if with_wandb else 1.2) * took))
        is_asked = number % 5 == 4
        os.kill(process, signal.SIGTERM if is_asked else signal.SIGKILL)
        code = wait(process)
        allowed = (0, 130, -signal.SIGTERM) if is_asked else (0, -signal.SIGKILL)
        if code not in allowed:
            broken.append(f"kill {number}: exit code {code}")
        check_reports(f"kill {number}", "killed", len(STEPS))
        if number % 10 == 9:
            expect(f"the capture after kill {number}", wait(start("killed", *series)), 0)
            check(f"after kill {number}", "killed")
            print(f"{number + 1} kills, {len(broken)} promises broken", flush=True)


def pair(number: int, *force: str) -> None:
    """Start two captures of one report at once; without --force one of them is refused."""
    folder = f"pair{number}{''.join(force)}"
    sinks = ("--sink", "json,tensorboard", *force, *NETWORK)
    processes = [start(folder, "--seed", str(seed), *sinks) for seed in (1, 2)]
    codes = [wait(process) for process in processes]
    expect(f"{folder}: exit codes", sorted(codes), [0, 0] if force else [0, 2])
    records = check(folder, folder)
    if not force and records:
        seed = codes.index(0) + 1 if 0 in codes else None
        expect(f"{folder}: the report's seed", records[0].provenance["seed"], seed)


def array(number: int) -> None:
    """Start four captures at once, each of one checkpoint and into a report of its own."""
    folder = f"array{number}"
    sinks = ("--sink", "json,tensorboard,wandb" if number % 5 == 0 else "json,tensorboard")
    processes = [
        start(folder, "--checkpoint", f"s{step}.ckpt", "--output-json-name", f"r{step}.json", *sinks)
        for step in random.sample(STEPS, len(STEPS))
    ]
    expect(f"{folder}: exit codes", [wait(process) for process in processes], [0] * len(STEPS))
    check(folder, folder)
    if number % 5 == 0:
        folders = list(Path(folder, "wandb").iterdir())
        expect(f"{folder}: W&B runs", len(folders), len(STEPS))
        ids = {path.stem for run in folders for path in run.glob("run-*.wandb")}
        expect(f"{folder}: ids of W&B runs", len(ids), 1)
        numbers = ft.WandbRun().read_back(Path(folder))
        expect(f"{folder}: steps in W&B", sorted(numbers), list(STEPS))


def check(when: str, folder: str) -> list[ft.CaptureRecord]:
    """Check that nothing is left lying, and that TensorBoard has the numbers of all reports; return these."""
    left = [str(path) for path in Path(folder).rglob(".*")]
    expect(f"{when}: left lying", left, [])
    records = check_reports(when, folder)
    events = list(Path(folder, "tensorboard", Path(folder).name).iterdir())
    expect(f"{when}: event files", len(events), 1)
    check_order(when, events[0])
    shown = ft.TensorBoard().read_back(Path(folder))
    expect(f"{when}: steps", sorted(shown, key=str), sorted((record.step for record in records), key=str))
    for record in records:
        for key, value in dict(keys.numbers(select_overview(record))).items():
            there = shown.get(record.step, {}).get(key)
            if there is None or abs(there - value) > PRECISION * abs(value) + 1e-37:
                broken.append(f"{when}: {key} at step {record.step} is {there}, and {value} in the report")
                break
    return records


def check_order(when: str, events: Path) -> None:
    """Check that the steps of an event file ascend."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    steps = [event.step for event in LegacyEventFileLoader(str(events)).Load() if event.summary.value]
    steps = [step for step in steps if step]  # the layout of charts has none
    expect(f"{when}: order of steps", steps, sorted(steps))


def check_reports(when: str, folder: str, count: int | None = None) -> list[ft.CaptureRecord]:
    """Check that each report is whole and of the step in its name."""
    records = []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            record = ft.load_report(path)
        except ft.ReportError as error:
            broken.append(f"{when}: {error}")
            continue
        if record.step is not None and str(record.step) not in path.name:
            broken.append(f"{when}: {path} is of step {record.step}")
        records.append(record)
    if count is not None:
        expect(f"{when}: reports", len(records), count)
    return records


def expect(what: str, seen: object, expected: object) -> None:
    """Note what is not as promised."""
    if seen != expected:
        broken.append(f"{what}: {seen}, expected {expected}")


if __name__ == "__main__":
    sys.exit(main())
