"""Keeps telemetry out of what `torch.compile` makes, without importing the compiler where nobody uses it."""

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_stances: list[AbstractContextManager[object]] = []  # one for each block that wants it, in whatever thread


def compiler_loaded() -> bool:
    """Whether anybody has compiled anything; importing the compiler would cost all others a second."""
    return "torch._dynamo" in sys.modules


@contextmanager
def eager() -> Iterator[None]:
    """Run what is compiled as it was written: what came after compilation is not in the compiled code.

    Compiled code is neither dropped nor made again. The stance is the process's: the last block to end, in
    whatever thread, puts it back.
    """
    if not compiler_loaded():
        yield
        return
    with _lock:
        # Making one puts it in force.
        _stances.append(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            # Not its own, but the newest: the one that knows what was before is taken back last.
            _stances.pop().__exit__(None, None, None)


def keep_uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` such that it and all it calls are never compiled, wherever it is called from."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not compiler_loaded():
            return function(*args, **kwargs)
        outside: Callable[P, T] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return outside(*args, **kwargs)

    leave_uncompiled(run)
    return run


def leave_uncompiled(function: Callable[..., object]) -> None:
    """Mark `function` as `torch.compiler.disable` does: calls of it are left as they are in compiled code."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
