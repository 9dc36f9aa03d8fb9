"""Follows the module calls of a forward by plain hooks: which call runs, inside which other one."""

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.compilation import eager
from fno_telemetry.isolation.function_transforms import outside_transforms
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.tracing.events import Failed, Listener
from fno_telemetry.tracing.module_calls import Call, paths_by_module, takes_hooks, unwrap


class FollowedCalls(ABC):
    """Has hooks on every module of `model` between enter and exit, and follows forwards within `batch()`.

    Hooks return None and never raise into the forward; exit removes only the own hooks. With `within`, only
    modules called by the model's own forward are followed: another model may share a module and call it
    elsewhere.
    """

    _following = threading.local()  # .all: what follows this thread

    def __init__(self, model: nn.Module, listener: Listener, within: bool) -> None:
        self.calls: list[Call] = []
        self.seconds = 0.0  # spent here and in the listener
        self.outside: set[str] = set()  # paths of the calls that `within` excluded
        self._listener = listener
        self._within = within
        self._model = unwrap(model)
        self._paths = paths_by_module(model)
        self._handles: list[RemovableHandle] = []
        self._stack: list[Call] = []
        self._numbers: dict[str, int] = {}
        self.joins = False
        """Whether what follows this thread already goes on to do so during a batch of this one."""
        self._in_batch = False

    def __enter__(self) -> Self:
        try:
            for module in self._model.modules():
                if id(module) not in self._paths or not takes_hooks(module):
                    continue
                start, end = Hook(self._start), Hook(self._end)
                self._handles.append(module.register_forward_pre_hook(start, with_kwargs=True))
                self._handles.append(module.register_forward_hook(end, with_kwargs=True, always_call=True))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._forget()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Follow everything that runs in this block on this thread as one batch; calls are counted from 0."""
        self._forget()
        batch = Call(0, "", 0, None, None)
        self.calls, self._stack = [batch], [batch]
        outer = _following_now()
        self._following.all = (*outer, self) if self.joins else (self,)
        self._in_batch = True
        try:
            with eager(), self._around_batch():
                yield
            self.aside("", self._batch_ended)
        finally:
            self._in_batch = False
            self._following.all = tuple(one for one in outer if one._in_batch)
            self._forget()

    def start_late(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Follow a call that has begun already, too early for the hook on this module."""
        self._start(module, args, kwargs)

    def aside(self, where: str, body: Callable[[], None]) -> None:
        """Run `body` without any effect on the forward; an error that it raises becomes a `Failed` event."""
        start = time.perf_counter()
        try:
            with (
                # First, so that a function mode does not see what the others call.
                torch._C.DisableTorchFunction(),
                torch.no_grad(),
                torch._C._DisableAutocast(),
                outside_transforms(),
            ):
                body()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - reported, never raised into the host
            # A listener that fails on this event too is ignored.
            with contextlib.suppress(Exception, SystemExit):
                self._listener.on(Failed(where, error))
        finally:
            self.seconds += time.perf_counter() - start

    @abstractmethod
    def _around_batch(self) -> contextlib.AbstractContextManager[object]:
        """Return what is to be entered around the forwards of a batch, which begins now."""

    @abstractmethod
    def _batch_ended(self) -> None:
        """Handle the end of a batch that raised no error."""

    @abstractmethod
    def _started(self, call: Call, inputs: tuple[Any, ...]) -> None:
        """Handle a call that begins, given the arguments `inputs`: positional ones, and those by name."""

    @abstractmethod
    def _ended(self, call: Call, inputs: tuple[Any, ...], output: Any) -> None:
        """Handle a call that ends."""

    def _forget(self) -> None:
        """Release everything that refers to tensors or calls of a batch."""
        self.calls, self._stack = [], []
        self._numbers.clear()

    def _running(self) -> bool:
        # A backward pass recomputes checkpointed modules, or differentiates what was followed before.
        return self in _following_now() and bool(self._stack) and torch._C._current_graph_task_id() == -1

    def _number(self, path: str) -> int:
        number = self._numbers.get(path, 0)
        self._numbers[path] = number + 1
        return number

    def _path(self, module: nn.Module) -> str:
        paths = self._paths.get(id(module), ("",))
        if len(paths) > 1:
            # A shared module has the path under which the running module holds it.
            for path in paths:
                if path.rpartition(".")[0] == self._stack[-1].path:
                    return path
        return paths[0]

    # A hook that is removed while its module is called is still called by torch, with one argument less.

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None or not self._running():
            return
        path = self._path(module)
        if self._within and path and len(self._stack) == 1:
            self.outside.add(path)
            return
        call = Call(len(self.calls), path, self._number(path), module, self._stack[-1])
        self.calls.append(call)
        self._stack.append(call)
        self.aside(path, lambda: self._started(call, (args, kwargs)))

    def _end(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any = None
    ) -> None:
        # After its removal, nothing is on the stack.
        if not self._running() or all(call.module is not module for call in self._stack):
            return
        while (call := self._stack.pop()).module is not module:
            pass
        self.aside(call.path, lambda: self._ended(call, (args, kwargs), output))


@contextmanager
def unfollowed() -> Iterator[None]:
    """Hide what runs in this block from what follows this thread already; batches may begin and end in it."""
    following = FollowedCalls._following
    before = _following_now()
    following.all = ()
    try:
        yield
    finally:
        following.all = tuple(one for one in (*before, *_following_now()) if one._in_batch)


def _following_now() -> tuple[FollowedCalls, ...]:
    return getattr(FollowedCalls._following, "all", ())
