"""The choice of kernels: made once, on first use; tests and users can insist on one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec

from fno_telemetry.errors import MissingExtra, OptionError
from fno_telemetry.statistics.kernels.narrow_values import WideningKernels
from fno_telemetry.statistics.kernels.numba_kernels import NumbaKernels
from fno_telemetry.statistics.kernels.torch_kernels import TorchKernels

VARIABLE = "FNO_TELEMETRY_KERNELS"
KINDS = ("torch", "numba")

_WORTH_COMPILING = 1 << 16
"""Elements of a tensor for which loading compiled loops is worth a second."""

_insisted: ContextVar[WideningKernels | None] = ContextVar("insisted", default=None)


def active() -> WideningKernels:
    """Return the kernels that statistics use."""
    return _insisted.get() or _chosen()


def kernels_in_use() -> str:
    """Return what computes the loops over elements, such as "numba 0.68.1" or "torch 2.13.0"."""
    return active().name


@contextmanager
def using(kind: str) -> Iterator[WideningKernels]:
    """Use the kernels of this kind, "torch" or "numba", within a block: for tensors of any size.

    Raises OptionError for another kind, and MissingExtra if numba is not installed.
    """
    token = _insisted.set(_load(kind))
    try:
        yield active()
    finally:
        _insisted.reset(token)


@cache
def _chosen() -> WideningKernels:
    if kind := os.environ.get(VARIABLE, ""):
        return _load(kind)
    return WideningKernels(TorchKernels() if find_spec("numba") is None else NumbaKernels(_WORTH_COMPILING))


@cache
def _load(kind: str) -> WideningKernels:
    if kind not in KINDS:
        raise OptionError(f"No kernels are called {kind!r}. Known: {', '.join(KINDS)}. See {VARIABLE}.")
    if kind == "torch":
        return WideningKernels(TorchKernels())
    if find_spec("numba") is None:
        raise MissingExtra("Compiled kernels need numba: pip install 'fno-telemetry[fast]'.")
    return WideningKernels(NumbaKernels(least=1))
