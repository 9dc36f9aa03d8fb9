"""The first samples of a stored array, at the cost of those samples."""

import math
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fno_telemetry.errors import InputError
from fno_telemetry.sources.npy_header import NpyHeader

_BLOCK = 1 << 20  # bytes handled at once; large enough that the Python loop around it costs nothing
_SMALL_GAP = 512  # bytes, a disk sector; reading over it is cheaper than a jump


class ValueBytes:
    """The bytes of an array's numbers, taken in order from a stream whose position is at the first of them.

    A stream that `jumps` skips by seeking; any other reads and discards, a bounded block at a time.
    Raises EOFError when the stream ends before `size` bytes.
    """

    def __init__(self, stream: IO[bytes], size: int, *, jumps: bool) -> None:
        self._stream = stream
        self.left = size
        self.jumps = jumps

    def fill(self, target: npt.NDArray[np.uint8]) -> None:
        """Fill the one-dimensional target with the next bytes."""
        filled = 0
        while filled < target.size:
            chunk = self._stream.read(min(_BLOCK, target.size - filled))
            if not chunk:
                raise EOFError("the data end too early")
            target[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        self.left -= filled

    def skip(self, count: int) -> None:
        """Pass over the next bytes."""
        if self.jumps:
            self._stream.seek(count, 1)
            self.left -= count
            return
        while count > 0:
            passed = len(self._stream.read(min(_BLOCK, count)))
            if not passed:
                raise EOFError("the data end too early")
            count -= passed
            self.left -= passed

    @property
    def is_finished(self) -> bool:
        """Whether every byte was read, none jumped over."""
        return self.left == 0 and not self.jumps

    def finish(self) -> None:
        """Read to the end, where a compressed stream checks its sum."""
        self.skip(self.left)
        if self._stream.read(1):
            raise EOFError("the data go on after their end")


def read_first(
    source: ValueBytes, header: NpyHeader, axis: int | None, count: int, where: str
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The first `count` entries along `axis` (all, if None), axes as stored, float32 or complex64.

    With them, which integers are likely no values. Memory is a small multiple of what is returned, whatever
    the file's size, memory order or sample axis.
    """
    # A Fortran-ordered array is the C-ordered one with its axes reversed.
    shape = header.shape[::-1] if header.fortran_order else header.shape
    if axis is None:
        axis, count = 0, header.shape[0]
    split = len(shape) - 1 - axis if header.fortran_order else axis
    rows = math.prod(shape[:split])
    stride = math.prod(shape[split:]) * header.dtype.itemsize
    wanted = stride // shape[split] * count
    if wanted == stride:
        rows, wanted, stride = 1, rows * wanted, rows * stride
    try:
        raw = np.empty(rows * wanted, np.uint8)
        _gather(source, rows, wanted, stride, raw)
        stored = raw.view(header.dtype)
        single, marks = _to_single(stored, where), describe_marks(stored)
    except MemoryError:
        raise InputError(
            f"{where}: {count} samples need {rows * wanted / 2**30:.1f} GiB, more than there is; "
            f"lower `max_samples` or save smaller samples."
        ) from None
    values = single.reshape(*shape[:split], count, *shape[split + 1 :])
    return values.transpose() if header.fortran_order else values, marks


def _gather(source: ValueBytes, rows: int, wanted: int, stride: int, raw: npt.NDArray[np.uint8]) -> None:
    """Copy the first `wanted` bytes of each `stride` bytes; nothing after the last wanted byte is read."""
    gap = stride - wanted
    together = _BLOCK // stride
    if together > 1 and (gap <= _SMALL_GAP or not source.jumps):
        block = np.empty((together, stride), np.uint8)
        kept = raw.reshape(rows, wanted)
        for start in range(0, rows, together):
            n = min(together, rows - start)
            source.fill(block.reshape(-1)[: n * stride - gap])
            kept[start : start + n] = block[:n, :wanted]
            if start + n < rows:
                source.skip(gap)
        return
    for row in range(rows):
        source.fill(raw[row * wanted : (row + 1) * wanted])
        if row < rows - 1:
            source.skip(gap)


def _to_single(raw: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    is_complex = raw.dtype.kind == "c"
    parts = raw.view(raw.real.dtype) if is_complex else raw
    with np.errstate(over="ignore", invalid="ignore"):
        single = parts.astype(np.float32, copy=False)
    if parts.dtype.kind == "f" and parts.dtype.itemsize > 4:
        refuse_overflow(int(np.count_nonzero(np.isinf(single) & np.isfinite(parts))), str(raw.dtype), where)
    return single.view(np.complex64) if is_complex else single


def describe_marks(stored: npt.NDArray[Any]) -> tuple[str, ...]:
    """Name the integers that are likely no values: detectors mark dead pixels by the largest one, or by -1.

    Negative numbers are named where fewer than half are negative: otherwise they are signed values.
    """
    if stored.dtype.kind not in "iu":
        return ()
    kind = stored.dtype.newbyteorder("=")
    largest, lowest = np.iinfo(kind).max, min(0, int(stored.min()))
    extreme, negative = int(np.count_nonzero(stored == largest)), int(np.count_nonzero(stored < 0))
    marks = []
    if extreme:
        are = "value is" if extreme == 1 else "values are"
        marks.append(f"{extreme} {are} {largest}, the largest of {kind}: masked or saturated pixels?")
    if 0 < negative < stored.size / 2:
        are = "count is" if negative == 1 else "counts are"
        marks.append(f"{negative} {are} negative (down to {lowest}): masked pixels?")
    return tuple(marks)


def refuse_overflow(overflown: int, dtype: str, where: str) -> None:
    """Raise InputError when finite numbers became infinite in single precision."""
    if overflown:
        raise InputError(
            f"{where}: {overflown} of its {dtype} numbers exceed what float32 holds (3.4e38); "
            f"rescale the data and save them as float32."
        )
