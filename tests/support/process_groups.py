"""Functions run in several processes of torch.distributed, each group with a time limit of its own."""

import importlib
import json
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp

GROUP_SECONDS = 20  # after which a process that waits for one that is gone gets an error


def run_in_processes(
    module: str,
    names: Sequence[str],
    count: int,
    folder: Path,
    seconds: float = 120,
    group_seconds: float = GROUP_SECONDS,
    ranks: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Return what the functions of a module return in each process, by name, as JSON holds it.

    Each is called with the rank and a folder. AssertionError with the traceback of one that raises. `ranks`
    are those that return something, by default all.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (group_seconds, count, port, module, tuple(names), str(folder))
    # Processes that have torch already, in a fifth of the time.
    multiprocessing.set_forkserver_preload(["support.process_groups", "fno_telemetry.session"])
    context = mp.start_processes(_run, arguments, nprocs=count, join=False, start_method="forkserver")
    ended = time.monotonic() + seconds
    try:
        while not context.join(timeout=0.2):
            assert time.monotonic() < ended, "the processes hang"
    finally:
        for process in context.processes:
            process.kill()
    return [
        json.loads(Path(folder, f"{rank}.json").read_text(encoding="utf-8")) for rank in ranks or range(count)
    ]


def _run(
    rank: int, group_seconds: float, count: int, port: int, module: str, names: Sequence[str], folder: str
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=count, timeout=timedelta(seconds=group_seconds))
    functions = importlib.import_module(module)
    found = {}
    for name in names:
        try:
            found[name] = getattr(functions, name)(rank, Path(folder))
        except BaseException:  # noqa: BLE001 - of any kind
            raise AssertionError(f"{name}, process {rank}:\n{traceback.format_exc()}") from None
        dist.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()
