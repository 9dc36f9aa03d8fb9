"""One digest for the numbers fed to a model, however they were split into batches."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from fno_telemetry.statistics.host_transfer import Arriving

_PIECE = 1 << 20  # values converted at once: 4 MiB

MOST_WAITING = 1 << 26
"""Bytes from a device that wait in host memory, beside the tensor that came last."""


class InputDigest:
    """SHA-256 over values and shape of all batches in order; any split into batches gives the same digest.

    Definition: the values of all batches, in order, as little-endian float32 in C order (complex numbers as
    complex64: real part, then imaginary part), followed by the shape of the whole in ASCII, where the first
    sizes of the batches are added up: `8,1,64,64`. Other number types are converted as they would be for the
    model, to float32 or complex64. Where a batch differs from the one before in any other size, or in being
    complex, the shape so far is hashed and a new whole begins; a tensor without axes counts as shape `1`.

    Memory is bounded by 4 Mi values, whatever the size and memory layout of a batch.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._first = 0
        self._rest: tuple[bool, tuple[int, ...]] | None = None  # complex?, sizes after the first

    def update(self, batch: torch.Tensor) -> None:
        """Add a batch (B, *S), on any device."""
        values = batch.detach()
        if values.dim() == 0:
            values = values.reshape(1)
        rest = (values.is_complex(), tuple(values.shape[1:]))
        if self._rest is not None and self._rest != rest:
            self._hash.update(self._shape())
            self._first = 0
        self._rest = rest
        self._first += values.shape[0]
        for piece in _pieces(values):
            self._hash.update(_little_endian(piece))

    def hexdigest(self) -> str:
        """The digest of what was added so far, 64 hexadecimal digits; more may be added afterwards."""
        total = self._hash.copy()
        total.update(self._shape())
        return total.hexdigest()

    def _shape(self) -> bytes:
        if self._rest is None:
            return b""
        return ",".join(str(size) for size in (self._first, *self._rest[1])).encode("ascii")


class InputsDigest:
    """The digest of all that goes into a model: of one tensor, or of several, each position on its own.

    Values on a device are copied to the host and digested later, so that nothing waits for the device.
    """

    def __init__(self) -> None:
        self._digests: list[InputDigest] = []
        self._is_whole = True
        self._waiting: deque[tuple[InputDigest, Arriving]] = deque()

    def update(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add the tensors of one batch; what this raises leaves the digest unknown."""
        before, self._is_whole = self._is_whole, False
        self._digests += [InputDigest() for _ in tensors[len(self._digests) :]]
        for digest, tensor in zip(self._digests, tensors, strict=False):
            if _is_away(tensor):
                self._waiting.append((digest, Arriving(tensor)))
                continue
            if any(waiting is digest for waiting, _ in self._waiting):
                # The tensors of one position are digested in their order.
                self._digest_all()
            digest.update(tensor)
        while len(self._waiting) > 1 and sum(arriving.nbytes for _, arriving in self._waiting) > MOST_WAITING:
            self._digest_oldest()
        self._is_whole = before

    def _digest_all(self) -> None:
        while self._waiting:
            self._digest_oldest()

    def _digest_oldest(self) -> None:
        digest, arriving = self._waiting.popleft()
        digest.update(arriving.wait())

    def hexdigest(self) -> str | None:
        """Return the digest; with several inputs, the SHA-256 over their digests. None where one failed."""
        if not self._is_whole:
            return None
        self._digest_all()
        digests = [digest.hexdigest() for digest in self._digests]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _is_away(tensor: torch.Tensor) -> bool:
    return tensor.device.type != "cpu"


def _pieces(values: torch.Tensor) -> Iterator[torch.Tensor]:
    """The values in C order as one-dimensional pieces, copying no more than a piece at once."""
    if values.dim() == 1 or values.is_contiguous():
        yield from torch.split(values.reshape(-1), _PIECE)
        return
    row = values.numel() // values.shape[0]
    if row > _PIECE:
        for part in values:
            yield from _pieces(part)
        return
    for part in torch.split(values, max(1, _PIECE // row)):
        yield part.reshape(-1)


def _little_endian(piece: torch.Tensor) -> memoryview:
    if piece.is_complex():
        single = torch.view_as_real(piece.to("cpu", torch.complex64).resolve_conj())
    else:
        single = piece.to("cpu", torch.float32)
    numbers: npt.NDArray[np.float32] = single.resolve_neg().numpy().astype("<f4", copy=False)
    return np.ascontiguousarray(numbers).reshape(-1).view(np.uint8).data
