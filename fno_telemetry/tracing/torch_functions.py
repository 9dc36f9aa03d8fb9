"""Intercepts torch functions, and lists what some of them do."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Body = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

ACTIVATIONS = {
    *("gelu", "relu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "rrelu", "relu6", "prelu", "glu"),
    *("tanh", "sigmoid", "logsigmoid", "softplus", "softsign", "hardtanh", "hardswish", "hardsigmoid"),
}

SAME_VALUES = {
    *("clone", "contiguous", "detach", "alias", "to", "type", "float", "double", "half", "bfloat16"),
    *("view", "view_as", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as"),
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t"),
}

SPLITTING = {"chunk", "split", "tensor_split", "split_with_sizes", "hsplit", "vsplit", "dsplit"}
JOINING = {"cat", "concat", "concatenate", "hstack", "vstack", "dstack"}

SELECTING = {
    *("topk", "sort", "argsort", "msort", "kthvalue", "quantile", "nanquantile", "median", "nanmedian"),
    *("gt", "lt", "ge", "le", "greater", "less", "greater_equal", "less_equal"),
    *("softshrink", "hardshrink", "threshold"),
}
"""Functions by which a layer chooses coefficients by their size."""

FRESH = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
}
"""Functions that take no more than shape, type and device of a tensor."""


NO_TENSORS = (int, float, complex, str, torch.Size, torch.dtype, torch.device, torch.layout, type(None))
"""What functions return that only ask something of a tensor."""


def name_of(func: Any) -> str:
    """Return the name of a function that a function mode sees; for a getter, that of its attribute."""
    name: str = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
    return name.removeprefix("fft_")


def keeps_values(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a function returns the values of its first argument; so does 0 + x, with which `sum` starts."""
    return name in SAME_VALUES or (
        name == "add" and bool(args) and isinstance(args[-1], int) and args[-1] == 0
    )


def pad_amounts(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the amounts that a call of `pad` adds before and after each axis, the last axis first."""
    return tuple(args[1] if len(args) > 1 else kwargs["pad"])


class EveryFunction(TorchFunctionMode):
    """Calls `body(function, args, kwargs)` instead of every torch function."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._body(func, args, kwargs or {})
