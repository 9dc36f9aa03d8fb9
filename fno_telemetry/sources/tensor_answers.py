"""What answers to torch's names in a pickle: tensors over storages that were checked to hold them."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fno_telemetry.sources.pickled_objects import Answer, PickleRefused, StandIn
from fno_telemetry.sources.plain_answers import PLAIN_ANSWERS

_PER_BYTE = 16  # a tensor may be saved under several names, but not without end
_ALLOWANCE = 1 << 28  # bytes; an expanded tensor has more numbers than are stored
_MOST_AXES = 64

_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QUInt8": torch.quint8,
    "QInt8": torch.qint8,
    "QInt32": torch.qint32,
}
_SCHEMES = {
    f"torch.{name}": getattr(torch, name)
    for name in (
        *("per_tensor_affine", "per_tensor_symmetric"),
        *("per_channel_affine", "per_channel_symmetric", "per_channel_affine_float_qparams"),
    )
}


@dataclass(frozen=True)
class StorageKind:
    """The class of a storage: the type of the numbers in it."""

    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Storage:
    """Bytes of a file, and the type of the numbers in them."""

    content: torch.UntypedStorage
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class _Wrapper:
    """A tensor without numbers of its own: they are in its state."""

    shape: tuple[int, ...]
    name: str


class TensorAnswers:
    """Rebuilds the tensors of one file of `size` bytes, and counts how many numbers they claim in all."""

    def __init__(self, size: int) -> None:
        self._left = _ALLOWANCE + _PER_BYTE * size

    def by_name(self) -> Mapping[str, object]:
        """Return the answers by dotted name, those of Python and NumPy too."""
        utils: Mapping[str, Callable[..., object]] = {
            "_rebuild_tensor": self.make_tensor,
            "_rebuild_tensor_v2": self.make_tensor,
            "_rebuild_tensor_v3": self.make_tensor_of_type,
            "_rebuild_qtensor": self.make_quantized,
            "_rebuild_sparse_tensor": self.make_sparse,
            "_rebuild_meta_tensor_no_storage": self.make_without_values,
            "_rebuild_parameter": _pass_on,
            "_rebuild_parameter_with_state": _pass_on,
            "_rebuild_device_tensor_from_cpu_tensor": _pass_on,
            "_rebuild_wrapper_subclass": _make_wrapper,
        }
        return {
            **PLAIN_ANSWERS,
            **_FIXED,
            **{f"torch._utils.{name}": Answer(function) for name, function in utils.items()},
            "torch._tensor._rebuild_from_type_v2": Answer(self.make_of_class),
        }

    def make_tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any, dtype: Any = None
    ) -> torch.Tensor:
        """Return a strided view of a storage, which must hold all of it. `rest` ends in conj and neg bits."""
        if not isinstance(storage, Storage):
            raise PickleRefused("it has a tensor without a storage")
        dtype = dtype or storage.dtype
        shape, strides = self._check_shape(shape, dtype), _check_sizes(strides)
        offset = _check_sizes((offset,))[0]
        if len(shape) != len(strides):
            raise PickleRefused(f"it has a tensor of {len(shape)} axes with {len(strides)} strides")
        steps = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        wanted = (offset + steps + 1) * dtype.itemsize if math.prod(shape) else 0
        if wanted > storage.content.nbytes():
            raise PickleRefused(
                f"a tensor of shape {shape} claims {wanted} bytes of a storage of {storage.content.nbytes()}"
            )
        tensor = torch.empty(0, dtype=dtype).set_(storage.content, offset, shape, strides)
        bits = rest[-1] if rest and type(rest[-1]) is dict else {}
        tensor = tensor.conj() if bits.get("conj") is True else tensor
        return torch._neg_view(tensor) if bits.get("neg") is True else tensor

    def make_tensor_of_type(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        grad: Any,
        hooks: Any,
        dtype: Any,
        *rest: Any,
    ) -> torch.Tensor:
        """Return a tensor whose type of number is given apart from its storage."""
        if not isinstance(dtype, torch.dtype):
            raise PickleRefused("it has a tensor without a type of numbers")
        return self.make_tensor(storage, offset, shape, strides, *rest, dtype=dtype)

    def make_quantized(
        self, storage: Any, offset: Any, shape: Any, strides: Any, parameters: Any, *_: Any
    ) -> torch.Tensor:
        """Return a quantized tensor."""
        if not isinstance(storage, Storage):
            raise PickleRefused("it has a tensor without a storage")
        whole = Storage(storage.content, torch.int32 if storage.dtype is torch.qint32 else torch.uint8)
        part = self.make_tensor(whole, offset, shape, strides)
        typed = torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=storage.content, dtype=storage.dtype, _internal=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that its own types are deprecated
            made: torch.Tensor = torch._utils._rebuild_qtensor(  # type: ignore[no-untyped-call]
                typed, part.storage_offset(), tuple(part.shape), part.stride(), parameters, False, {}
            )
        return made

    def make_sparse(self, _: Any, data: Any) -> object:
        """Return a tensor of the shape of a sparse one, which no network here takes, without its numbers."""
        sizes = [part for part in data if isinstance(part, tuple)]
        return self.make_without_values(torch.float32, sizes[0] if sizes else ())

    def make_without_values(self, dtype: Any, shape: Any, *_: Any) -> torch.Tensor:
        """Return a tensor that has a shape and no numbers."""
        return torch.empty(self._check_shape(shape, dtype), dtype=dtype, device="meta")

    def make_of_class(self, function: Any, _: Any, arguments: Any, state: Any) -> object:
        """Return a tensor of a subclass as a plain one; a DTensor that is whole in this file as well."""
        if not isinstance(function, Answer):
            return StandIn(getattr(function, "path", "torch.Tensor"), (*arguments, state))
        made = function.function(*arguments)
        if not isinstance(made, _Wrapper):
            return made
        # Attributes, or a pair of those and of slots.
        parts = [part for part in (state if isinstance(state, tuple) else (state,)) if isinstance(part, dict)]
        local = next((part["_local_tensor"] for part in parts if "_local_tensor" in part), None)
        if isinstance(local, torch.Tensor) and tuple(local.shape) == made.shape:
            return local
        closed = StandIn(made.name)
        closed.holds_tensors = True
        return closed

    def _check_shape(self, shape: Any, dtype: Any) -> tuple[int, ...]:
        """Return a shape, and count its bytes; PickleRefused when it is none, or the file claims too many."""
        sizes = _check_sizes(shape)
        self._left -= math.prod(sizes) * dtype.itemsize
        if self._left < 0:
            raise PickleRefused(
                f"its tensors, the last one of shape {sizes}, claims many times the numbers that are stored"
            )
        return sizes


def _check_sizes(sizes: Any) -> tuple[int, ...]:
    plain = isinstance(sizes, tuple | list) and all(type(n) is int and 0 <= n < 1 << 62 for n in sizes)
    if not plain or len(sizes) > _MOST_AXES:
        raise PickleRefused("it has a tensor of an impossible shape")
    return tuple(sizes)


def _pass_on(tensor: object, *_: object) -> object:
    """Return the tensor that a parameter holds."""
    return tensor


def _make_wrapper(kind: Any, dtype: Any, shape: Any, *_: object) -> _Wrapper:
    return _Wrapper(_check_sizes(shape), getattr(kind, "path", "torch.Tensor"))


_FIXED: Mapping[str, object] = {
    **_DTYPES,
    **_SCHEMES,
    **{
        f"torch.{device}{name}Storage": StorageKind(kind)
        for name, kind in _STORAGES.items()
        for device in ("", "cuda.")
    },
    "torch.storage.UntypedStorage": StorageKind(torch.uint8),
    "torch.Size": Answer(_check_sizes),
}
