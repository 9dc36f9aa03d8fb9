"""What many reports cost: `compare` and `diagnose` of 100 reports, and what a step takes in dashboards.

A small network is captured; its records are multiplied to the size asked for, every number a little changed,
so that digits, histograms and spectra are as long as in a real report. The commands run as users run them, in
processes of their own: the shortest processor time of several runs is shown, start-up included. The parts of
`compare` are measured in this process too, and so is what help costs.

Without options the network has 200 layers; `--layers 27 --blocks 4` is the size of the built-in `fno`.

Usage: python benchmarks/compare_cost.py [--layers 200] [--blocks 50] [--checkpoints 100] [--runs 5]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import fno_telemetry as ft
from fno_telemetry import plugins


def processor_time(*arguments: str, runs: int) -> tuple[float, float]:
    """Return the processor time of a Python process, in seconds, the least of so many runs, and its MiB."""
    times, memory = [], 0.0
    for _ in range(runs):
        line = [sys.executable, *arguments]
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, line)
        times.append(used.ru_utime + used.ru_stime)
        memory = used.ru_maxrss / 1024
    return min(times), memory


def show_help_costs(runs: int) -> None:
    imports, _ = processor_time("-c", "import typer, rich", runs=runs)
    print(f"  importing typer and rich: {imports:.2f} s of processor time")
    drawing, _ = processor_time("-c", "import typer.rich_utils, typer._adapters", runs=runs)
    print(f"  importing all that typer itself needs for the help of a command: {drawing:.2f} s")
    for command in ("", "capture", "compare", "diagnose", "view"):
        used, _ = processor_time("-m", "fno_telemetry_cli", *command.split(), "--help", runs=runs)
        print(f"  {f'{command} --help'.lstrip()}: {used:.2f} s")


def a_record() -> ft.CaptureRecord:
    """Capture a network of one block, whose layers are the pattern of all layers."""
    import torch

    torch.manual_seed(0)
    network = plugins.load("architectures", "fno_vanilla").build(hidden_channels=8, n_blocks=1, modes=8, C=1)
    return ft.capture(network, torch.rand(8, 1, 64, 64))


def grown(record: ft.CaptureRecord, layers: int, blocks: int, step: int) -> ft.CaptureRecord:
    """Return the record with so many layers and blocks, as of a training that goes on slowly."""
    rng = np.random.default_rng(step)
    drift = 1 + 1e-4 * step

    def moved(stats: Any) -> Any:
        return type(stats)({name: changed(value) for name, value in stats.items()})

    def changed(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        # Shares end at 1.
        return min(value * drift * (1 + 1e-3 * rng.random()), 1.0 if 0 <= value <= 1 else np.inf)

    patterns = [module for module in record.modules if module.spectrum is not None]
    chosen = [patterns[index % len(patterns)] for index in range(layers)]
    modules = tuple(
        replace(
            module,
            name=f"encoder.blocks.{index // 4}.{module.name}.{index}",
            order=index,
            stats=moved(module.stats),
        )
        for index, module in enumerate(chosen)
    )
    block = record.blocks[0]
    all_blocks = tuple(
        replace(block, name=f"encoder.blocks.{i}", stats=moved(block.stats)) for i in range(blocks)
    )
    summary = type(record.summary)({**record.summary, "checkpoint_step": step, "step_kind": "step"})
    return replace(record, modules=modules, blocks=all_blocks, summary=summary)


def sizes(record: ft.CaptureRecord, folder: Path) -> Iterator[str]:
    """Yield a line for each place that a record goes to."""
    from fno_telemetry.keys import tensors_by_place
    from fno_telemetry.sinks import DETAILS, at_detail
    from fno_telemetry.sinks.tensorboard.summaries import scalars
    from fno_telemetry.sinks.wandb.rows import row

    report = folder / "one.json"
    ft.JsonFile(report).write(record)
    yield f"report: {report.stat().st_size / 1e6:.2f} MB"
    for detail in DETAILS:
        log_dir = folder / f"events of {detail}"
        sink = ft.TensorBoard(log_dir=log_dir, detail=detail)
        sink.open(ft.RunContext(folder))
        sink.write(record)
        sink.close(ok=True)
        events = sum(file.stat().st_size for file in log_dir.iterdir())
        shown = at_detail(record, detail)
        bins = 2 * sum(1 for _ in tensors_by_place(shown))
        curves = sum(1 for _ in scalars(shown))
        yield f"TensorBoard, {detail}: {events / 1e6:.2f} MB a step, {curves} curves, {bins} histograms"
        made = row(record, detail)
        size = len(json.dumps({**made.scalars, **made.histograms}))
        keys = len(made.scalars) + len(made.histograms)
        yield f"W&B, {detail}: {size / 1e6:.2f} MB a row as JSON, {keys} keys"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=50)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    pattern = a_record()
    print(f"{given.checkpoints} reports of {given.layers} layers and {given.blocks} blocks")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for line in sizes(grown(pattern, given.layers, given.blocks, 1), folder):
            print(f"  {line}")
        reports = folder / "reports"
        for step in range(given.checkpoints):
            record = grown(pattern, given.layers, given.blocks, step)
            ft.JsonFile(reports / f"activation_report.step{step}.json").write(record)
        for command in ("compare", "diagnose"):
            used, memory = processor_time(
                "-m", "fno_telemetry_cli", command, str(reports), "--fail-on", "never", runs=given.runs
            )
            print(f"  {command}: {used:.2f} s of processor time, {memory:.0f} MiB")
        start = time.process_time()
        records = [ft.load_report(path) for path in sorted(reports.iterdir())]
        read = time.process_time() - start
        start = time.process_time()
        ft.compare(*records)
        print(f"    reading {read:.2f} s, comparing {time.process_time() - start:.2f} s of processor time")
    show_help_costs(given.runs)


if __name__ == "__main__":
    main()
