"""The memory of a forward and of a capture of one network, in MiB, as a line of JSON.

    MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536 python benchmarks/capture_memory.py NETWORK

With these two settings glibc returns freed memory to the system at once, so that the peak of the process,
which Linux can forget (`/proc/self/clear_refs`), is that of what runs between. `measure` starts a process so.
"""

import gc
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measured_networks import make

import fno_telemetry as ft

SETTINGS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
MIB = 2**20


def measure(network: str) -> dict[str, float] | None:
    """Return the figures of a network, measured in a process of its own; None where that is not possible."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    command = [sys.executable, __file__, network]
    done = subprocess.run(command, env=os.environ | SETTINGS, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(network: str) -> None:
    """Print the figures of a network."""
    torch.set_num_threads(1)
    model, batch = make(network)
    plan = ft.plan(model, batch)
    with torch.no_grad():
        forward = peak_above(lambda: model(batch))
    capture = peak_above(lambda: ft.capture(model, batch, plan=plan))
    record = ft.capture(model, batch, plan=plan)
    largest = max(math.prod(module.shape) for module in record.modules) * 4 / MIB
    fields = record.provenance["overhead"]["mean_field_bytes"] / MIB
    print(json.dumps({"forward": forward, "capture": capture, "mean_fields": fields, "largest": largest}))


def peak_above(action: Callable[[], object]) -> float:
    """Return by how many MiB the memory of this process grows at most while `action` runs."""
    action()  # what is kept for later calls
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = read_status("VmRSS")
    action()
    return read_status("VmHWM") - before


def read_status(name: str) -> float:
    """Return an entry of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main(sys.argv[1])
