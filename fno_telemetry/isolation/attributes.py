"""The plain attributes of the modules of a model, such as caches and counters, with all that is in them."""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from fno_telemetry.isolation.bindings import Bindings
from fno_telemetry.isolation.contents import Kept
from fno_telemetry.isolation.objects import FIXED, keep
from fno_telemetry.isolation.tensor_values import CopyBudget, find_storage

MOST_BYTES = 2**28
"""How many bytes of tensors and arrays in attributes are copied; of those beyond, only writes are counted."""

MOST_OBJECTS = 10_000
"""How many objects inside attributes are looked at."""

# These wrap a model to distribute or compile it, and keep a part of their state outside of Python.
_WRAPPING = ("torch.distributed", "torch.nn.parallel", "torch._dynamo", "deepspeed")


@dataclass(frozen=True)
class Attribute:
    """An attribute of a module, and the type of what changed inside it."""

    module: nn.Module
    name: str
    kind: str


class Attributes:
    """The plain attributes of every module when this is made; wrappers of models are left to themselves."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._parts = _list_parts(model)
        self._bindings = [
            Bindings(module, self._parts) for module in model.modules() if not defined_in(module, _WRAPPING)
        ]
        self._inside: list[tuple[Attribute, Kept]] = []
        self._keep_inside()

    def has_new_parts(self, replaced: bool) -> bool:
        """Whether there are new submodules or parameters; with `replaced`, also in place of others."""
        return any(bindings.has_new_parts(replaced) for bindings in self._bindings)

    def find_changed(self) -> list[Attribute]:
        """Return the attributes that changed."""
        names = [Attribute(one.module, name, "") for one in self._bindings for name in one.find_changed()]
        inside = [attribute for attribute, kept in self._inside if _has_changed(kept)]
        return list({(id(one.module), one.name): one for one in [*names, *inside]}.values())

    def put_back(self) -> list[Attribute]:
        """Put back what changed; return the attributes of which a part could not be put back."""
        for bindings in self._bindings:
            bindings.put_back()
        left = []
        for attribute, kept in self._inside:
            if not _has_changed(kept):
                continue
            with suppress(Exception):  # an object may refuse anything
                kept.put_back()
            if _has_changed(kept):
                left.append(attribute)
        return left

    def _keep_inside(self) -> None:
        """Keep the contents of everything that the attributes refer to, first what is nearest to a module."""
        budget = CopyBudget(MOST_BYTES)
        seen = {*self._parts, *map(id, self._model.buffers())}
        parameters = {*map(find_storage, self._model.parameters())} - {0}
        found = deque(
            (Attribute(one.module, name, ""), value)
            for one in self._bindings
            for name, value in one.list_values()
            if not isinstance(value, FIXED)
        )
        for _ in range(MOST_OBJECTS):
            if not found:
                return
            attribute, value = found.popleft()
            if isinstance(value, FIXED) or id(value) in seen or _is_fixed_tuple(value):
                continue
            seen.add(id(value))
            if isinstance(value, torch.Tensor) and find_storage(value) in parameters:
                continue
            with suppress(Exception):  # an object that cannot be read cannot be put back either
                contents, inside = keep(value, budget)
                own = Attribute(attribute.module, attribute.name, type(value).__name__)
                self._inside += [(own, kept) for kept in contents]
                found.extend((attribute, part) for part in inside[: MOST_OBJECTS - len(found)])


def _list_parts(model: nn.Module) -> set[int]:
    return set(map(id, chain(model.modules(), model.parameters())))


def defined_in(module: nn.Module, packages: tuple[str, ...]) -> bool:
    """Whether the class of a module, or one that it derives from, is in one of these packages."""
    return any(cls.__module__.startswith(packages) for cls in type(module).__mro__)


def _is_fixed_tuple(value: object) -> bool:
    """Whether this is a tuple such as the kernel size of a convolution."""
    return type(value) is tuple and all(isinstance(part, FIXED) for part in value)


def _has_changed(kept: Kept) -> bool:
    try:
        return kept.changed()
    except Exception:  # noqa: BLE001 - an object may refuse anything
        return False
