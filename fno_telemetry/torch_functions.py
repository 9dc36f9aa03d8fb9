"""Shows every torch function that is called."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

Body = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class EveryFunction(TorchFunctionMode):
    """Calls `body(function, args, kwargs)` for every torch function, in its place."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._body(func, args, kwargs or {})
