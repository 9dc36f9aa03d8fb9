"""Hooks that are not copied or saved with a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.compilation import compiler_loaded, mark_uncompiled


class Hook:
    """A hook that calls `body` and returns None, so that it never replaces an input or output of a module.

    A copy or pickle of the model holds a function instead that only removes itself. In a compiled model the
    hook costs its module one graph break and always runs uncompiled.
    """

    def __init__(self, body: Callable[..., None]) -> None:
        self._body = body

    def __call__(self, *arguments: Any) -> None:
        """Call `body` with the arguments of the hook."""
        if compiler_loaded():
            # From now on the compiler skips hooks; otherwise it would inspect each of them once.
            Hook.__call__ = torch.compiler.disable(Hook._call)  # type: ignore[method-assign,no-untyped-call]
        self._call(*arguments)

    mark_uncompiled(__call__)

    def _call(self, *arguments: Any) -> None:
        self._body(*arguments)

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _restore, ()


def remove_itself(module: nn.Module, *_: Any) -> None:
    """Remove the replacements of `Hook`s from a copied module and from all of its submodules."""
    for copied in module.modules():
        flags = (
            copied._forward_pre_hooks_with_kwargs,
            copied._forward_hooks_with_kwargs,
            copied._forward_hooks_always_called,
        )
        for hooks in (copied._forward_pre_hooks, copied._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook is remove_itself]:
                for table in (hooks, *flags):
                    table.pop(key, None)


def _restore() -> Callable[..., None]:
    return remove_itself
