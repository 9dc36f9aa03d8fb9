"""The processes that measure together, and the few collectives by which their numbers become one."""

from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from fno_telemetry.statistics.moments_over_processes import Numbers

BACKEND = "gloo"  # the numbers are in host memory, whatever the device of the model


class ProcessGroup:
    """All processes of the program, in a group of its own.

    What the program itself reduces cannot mix with it. Every process has to make it at the same point, and to
    call the same methods in the same order, and each may write into the array that it is given. A call raises
    an error if another process is gone, at the latest after this time.
    """

    def __init__(self, timeout: timedelta) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._group = dist.new_group(backend=BACKEND, timeout=timeout)

    def largest(self, numbers: Numbers) -> Numbers:
        """Return the largest of each number over the processes, in every one of them."""
        return self._reduce_all(numbers, dist.ReduceOp.MAX)

    def add_up(self, numbers: Numbers) -> Numbers:
        """Return the sum of each number over the processes, in every one of them."""
        return self._reduce_all(numbers, dist.ReduceOp.SUM)

    def add_up_in_first(self, numbers: Numbers) -> Numbers | None:
        """Return the same in the first process, None in the others."""
        tensor = torch.from_numpy(np.ascontiguousarray(numbers, np.float64))
        dist.reduce(tensor, dst=0, op=dist.ReduceOp.SUM, group=self._group)
        return tensor.numpy() if self.rank == 0 else None

    def hand_out(self, text: str | None) -> str:
        """Return the text of the first process in every one; the others give None."""
        own = np.frombuffer(b"" if text is None else text.encode("utf-8", "surrogatepass"), np.uint8)
        size = int(self.add_up(np.array((own.size,)))[0])
        tensor = torch.from_numpy(own.copy()) if self.rank == 0 else torch.zeros(size, dtype=torch.uint8)
        dist.broadcast(tensor, src=0, group=self._group)
        return bytes(tensor.numpy()).decode("utf-8", "surrogatepass")

    def gather_texts(self, text: str) -> list[str]:
        """Return the texts of all processes, in order of their ranks."""
        # Lone surrogates come of file names that are not UTF-8.
        own = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        lengths = np.zeros(self.count)
        lengths[self.rank] = own.size
        sizes = self.add_up(lengths).astype(int).tolist()
        padded = torch.zeros(max(*sizes, 1), dtype=torch.uint8)
        padded[: own.size] = torch.from_numpy(own.copy())
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self._group)
        return [
            bytes(part[:size].numpy()).decode("utf-8", "surrogatepass")
            for part, size in zip(parts, sizes, strict=True)
        ]

    def _reduce_all(self, numbers: Numbers, operation: Any) -> Numbers:
        tensor = torch.from_numpy(np.ascontiguousarray(numbers, np.float64))
        dist.all_reduce(tensor, op=operation, group=self._group)
        found: Numbers = tensor.numpy()
        return found


def find_group(in_training: bool = False) -> ProcessGroup:
    """Return the group of all processes, which is made once; the first call is one of all of them.

    Its time limit is that of the program's own group, in a training half of that: a process that waits here
    must not let another one run into its limit in the training itself.
    """
    world = dist.group.WORLD
    if _made.get(in_training, (None, None))[0] is not world:
        limit = find_timeout()
        _made[in_training] = world, ProcessGroup(limit / 2 if in_training else limit)
    return _made[in_training][1]


_made: dict[bool, tuple[Any, ProcessGroup]] = {}  # the program's own group, and the one made for it


def is_distributed() -> bool:
    """Return whether the program has several processes of `torch.distributed` at work."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    """Return whether this is the only process of the program, or the one with rank 0."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_rank())


def find_timeout() -> timedelta:
    """Return the time limit of the program's own group."""
    group: Any = dist.distributed_c10d._get_default_group()
    for device in ("cpu", "cuda"):
        try:
            found: timedelta = group._get_backend(torch.device(device)).options._timeout
        except (AttributeError, RuntimeError):
            continue
        return found
    return dist.default_pg_timeout
