"""Keeps telemetry out of compiled code, without importing the compiler if nothing is compiled."""

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_stances: list[AbstractContextManager[object]] = []  # one for each running `eager` block, in any thread


def _unlock() -> None:
    """Let a forked process run eagerly: the thread that holds the lock may not exist in it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def compiler_loaded() -> bool:
    """Whether the compiler was imported; importing it takes about a second, so nothing here does."""
    return "torch._dynamo" in sys.modules


def has_compiled_parts(model: nn.Module) -> bool:
    """Return whether the model or a part of it is compiled, by `torch.compile` or in place."""
    return any(
        module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule"
        for module in model.modules()
    )


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled modules eagerly within the block, because compiled code ignores hooks added later.

    Compiled code is neither dropped nor recompiled. The stance applies to the whole process; the last block
    to end, in any thread, restores it.
    """
    if not compiler_loaded():
        yield
        return
    with _lock:
        # Creating a stance activates it.
        _stances.append(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            # The newest one, not its own: the oldest knows the original stance, so it is restored last.
            _stances.pop().__exit__(None, None, None)


def keep_uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` wrapped so that it and everything that it calls always run uncompiled."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if not compiler_loaded():
            return function(*args, **kwargs)
        uncompiled: Callable[P, T] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
        return uncompiled(*args, **kwargs)

    mark_uncompiled(run)
    return run


def mark_uncompiled(function: Callable[..., object]) -> None:
    """Mark `function` as `torch.compiler.disable` does: compiled code calls it uncompiled."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
