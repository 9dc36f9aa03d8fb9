"""The choice of kernels: made once, on first use; tests and users can insist on one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from fno_telemetry.statistics.kernels.signatures import Kernels
from fno_telemetry.statistics.kernels.torch_kernels import TorchKernels

_insisted: ContextVar[Kernels | None] = ContextVar("insisted", default=None)


def active() -> Kernels:
    """Return the kernels that statistics use."""
    return _insisted.get() or _chosen()


def name() -> str:
    """Return what computes the loops over elements, such as "torch 2.13.0"."""
    return active().name


@contextmanager
def using(kind: str) -> Iterator[Kernels]:
    """Use the kernels of this kind within a block."""
    token = _insisted.set(_load(kind))
    try:
        yield active()
    finally:
        _insisted.reset(token)


@cache
def _chosen() -> Kernels:
    return _load("torch")


@cache
def _load(kind: str) -> Kernels:
    return TorchKernels()
