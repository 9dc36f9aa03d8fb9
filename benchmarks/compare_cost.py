"""What many reports cost: `compare` over 100 checkpoints of 200 layers, and what a step takes in dashboards.

A small network is captured; its records are multiplied to the size asked for, every number a little changed,
so that digits, histograms and spectra are as long as in a real report. `compare` runs as users run it, in a
process of its own; its parts are measured in this one too.

Usage: python benchmarks/compare_cost.py [--layers 200] [--blocks 50] [--checkpoints 100]
"""

import argparse
import json
import resource
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

PROGRAM = """
import sys
from fno_telemetry_cli.app import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in ("torch", "tensorboard", "wandb") if name in sys.modules], file=sys.stderr)
"""


def a_record() -> ft.CaptureRecord:
    """Capture a network of one block, whose layers are the pattern of all layers."""
    import torch

    torch.manual_seed(0)
    network = plugins.load("architectures", "fno_vanilla").build(hidden_channels=8, n_blocks=1, modes=8, C=1)
    return ft.capture(network, torch.rand(8, 1, 64, 64))


def grown(record: ft.CaptureRecord, layers: int, blocks: int, step: int) -> ft.CaptureRecord:
    """Return the record with so many layers and blocks, as of a training that goes on slowly."""
    rng = np.random.default_rng(step)

    def moved(stats: Any) -> Any:
        drift = 1 + 1e-4 * step
        numbers = {
            k: v * drift * (1 + 1e-3 * rng.random()) if isinstance(v, float) else v for k, v in stats.items()
        }
        return type(stats)(numbers)

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
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "compare", str(reports), "--fail-on", "never"],
            capture_output=True,
            text=True,
            check=True,
        )
        wall = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = used.ru_utime + used.ru_stime
        print(f"  compare: {wall:.1f} s wall, {processor:.1f} s processor, {used.ru_maxrss / 1024:.0f} MiB")
        print(f"    {done.stdout.splitlines()[0]}")
        print(f"    of torch, tensorboard, wandb it imported {done.stderr.splitlines()[-1]}")
        start = time.process_time()
        records = [ft.load_report(path) for path in sorted(reports.iterdir())]
        read = time.process_time() - start
        start = time.process_time()
        ft.compare(*records)
        print(f"    reading {read:.1f} s, comparing {time.process_time() - start:.1f} s of processor time")


if __name__ == "__main__":
    main()
