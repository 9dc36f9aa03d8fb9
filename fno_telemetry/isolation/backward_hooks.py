"""Keeps backward hooks of others out of a gradient pass, whose gradients are not those of their training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_globals

Table = dict[int, Callable[..., Any]]


@contextmanager
def silence_module_hooks(model: nn.Module, silent: Callable[[], bool]) -> Iterator[None]:
    """Let the backward hooks on modules do nothing while `silent()`, also those on all modules at once.

    At other times they run, so that a forward that differentiates for itself gets what it would get.
    """
    tables: list[Table] = [
        module_globals._global_backward_hooks,
        module_globals._global_backward_pre_hooks,
    ]
    for module in model.modules():
        tables += [table for name in _MODULE_TABLES if isinstance(table := vars(module).get(name), dict)]
    before = [(table, dict(table)) for table in tables if table]
    for table, hooks in before:
        table.update({key: _gate(hook, silent) for key, hook in hooks.items()})
    try:
        yield
    finally:
        for table, hooks in before:
            table.update((key, hook) for key, hook in hooks.items() if key in table)


@contextmanager
def without_tensor_hooks(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Take the hooks off these tensors; when the block ends they are on them again, in the same order."""
    tables = [
        table for tensor in tensors for name in _TENSOR_TABLES if (table := getattr(tensor, name, None))
    ]
    before = [(table, dict(table)) for table in tables]
    for table, _ in before:
        table.clear()
    try:
        yield
    finally:
        for table, hooks in before:
            table.update(hooks)


_MODULE_TABLES = ("_backward_hooks", "_backward_pre_hooks")
_TENSOR_TABLES = ("_backward_hooks", "_post_accumulate_grad_hooks")


def _gate(hook: Callable[..., Any], silent: Callable[[], bool]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return None if silent() else hook(*arguments)

    return run
