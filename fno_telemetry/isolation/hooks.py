"""Hooks that do not go along when a model is copied or saved while they are on it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.compilation import compiler_loaded, leave_uncompiled


class Hook:
    """A hook that calls `body` and returns None, so that it never replaces what a module takes or returns.

    In a copy or a pickle of the model a function stands in its place that does nothing but remove itself.
    In a compiled model it costs its module one graph break, and what it does is never compiled.
    """

    def __init__(self, body: Callable[..., None]) -> None:
        self._body = body

    def __call__(self, *arguments: Any) -> None:
        """Call the body with what a hook gets."""
        if compiler_loaded():
            # From here on the compiler does not even look into hooks, which it would do once for each.
            Hook.__call__ = torch.compiler.disable(Hook._call)  # type: ignore[method-assign,no-untyped-call]
        self._call(*arguments)

    leave_uncompiled(__call__)

    def _call(self, *arguments: Any) -> None:
        self._body(*arguments)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _left_behind, ()


def remove_itself(module: nn.Module, *_: Any) -> None:
    """Remove what `Hook`s left behind in a copy of a module and in all modules below it."""
    for one in module.modules():
        flags = (
            one._forward_pre_hooks_with_kwargs,
            one._forward_hooks_with_kwargs,
            one._forward_hooks_always_called,
        )
        for hooks in (one._forward_pre_hooks, one._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook is remove_itself]:
                for table in (hooks, *flags):
                    table.pop(key, None)


def _left_behind() -> Callable[..., None]:
    return remove_itself
