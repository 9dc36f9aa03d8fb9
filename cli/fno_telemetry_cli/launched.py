"""Whether a launcher such as torchrun has started the command in several processes, and which one this is."""

import contextlib
import os
from collections.abc import Iterator

import fno_telemetry as ft

_SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def count_processes() -> int:
    """Return how many processes run the command; 1 where no launcher says so."""
    if not all(os.environ.get(name) for name in _SET_BY_LAUNCHERS):
        return 1
    return max(_read("WORLD_SIZE"), 1)


def is_first() -> bool:
    """Return whether this process is the one that prints and writes."""
    return count_processes() == 1 or _read("RANK") == 0


@contextlib.contextmanager
def joined_processes() -> Iterator[None]:
    """Let the processes of a launcher find one another within the block; nothing where there is only one."""
    if count_processes() == 1:
        yield
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise ft.OptionError("this torch has no torch.distributed; start the command without torchrun")
    if dist.is_initialized():
        yield
        return
    if torch.cuda.is_available() and (local := os.environ.get("LOCAL_RANK", "")).isdigit():
        # So that --device cuda is another one in each process.
        torch.cuda.set_device(int(local) % torch.cuda.device_count())
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # another process may be gone
            dist.destroy_process_group()


def _read(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else 0
