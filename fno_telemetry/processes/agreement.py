"""What processes agree on besides numbers, so that none of them waits for one that has given up."""

import contextlib
from collections.abc import Iterator

import numpy as np

from fno_telemetry.errors import ModelError
from fno_telemetry.processes.group import find_group, is_distributed
from fno_telemetry.wording import describe_error


@contextlib.contextmanager
def agree_on_errors() -> Iterator[None]:
    """Raise an error that the block raises in one process in all of them; every process has to come here.

    In the others it is a ModelError that says where it was. Of a single process, errors come as they are.
    """
    if not is_distributed():
        yield
        return
    group = find_group()
    try:
        yield
    except (Exception, SystemExit) as error:
        group.gather_texts(describe_error(error) or type(error).__name__)
        raise
    texts = group.gather_texts("")
    for rank, text in enumerate(texts):
        if text:
            raise ModelError(f"process {rank} of {len(texts)} failed: {text}")


def share_number(number: int) -> int:
    """Return the number of the first process in every one."""
    if not is_distributed():
        return number
    group = find_group()
    return int(group.add_up(np.array((number if group.rank == 0 else 0,), np.float64))[0])
