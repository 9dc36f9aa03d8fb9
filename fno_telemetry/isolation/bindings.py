"""The names of a module: its plain attributes and the tables that torch keeps, and what they refer to."""

from collections.abc import Iterator, Mapping, Set
from functools import partial
from typing import Any

import torch
from torch import nn

from fno_telemetry.isolation.contents import Contents
from fno_telemetry.isolation.objects import keep_slots

# The tables of every module. The training flag has a rule of its own.
_OWN = frozenset(vars(nn.Module()))
_PARTS = ("_parameters", "_modules")
_TABLES = _OWN - {"training", *_PARTS}


class Bindings:
    """What the names of one module refer to when this is made.

    A submodule or parameter under a new name stays: later calls of the model need the hooks on it. What was
    removed in the module that has new ones was replaced by them, and stays away.
    """

    def __init__(self, module: nn.Module, known: Set[int]) -> None:
        self.module = module
        self._known = known  # ids of the modules and parameters of the model
        self._names = [*_keep_names(module)]
        own = vars(module)
        tables = [own[name] for name in _TABLES if name in own]
        # Most of them are empty.
        self._tables = [(table, tuple(table.items())) for table in tables if isinstance(table, dict)]
        self._sets = [(table, set(table)) for table in tables if isinstance(table, set)]
        self._parts = {name: dict(own[name]) for name in _PARTS if isinstance(own.get(name), dict)}

    def list_values(self) -> Iterator[tuple[str, object]]:
        """Yield the plain attributes and what they referred to."""
        for contents in self._names:
            yield from contents.before.items()

    def find_changed(self) -> Iterator[str]:
        """Yield the plain attributes that refer to something else now, or are new."""
        for contents in self._names:
            now, before = contents.read(), contents.before
            yield from (
                name for name in {**before, **now} if now.get(name, self) is not before.get(name, self)
            )

    def has_new_parts(self, replaced: bool) -> bool:
        """Whether there are new submodules or parameters; with `replaced`, also in place of others."""
        return any(
            part is not None and id(part) not in self._known and (replaced or before.get(name) is None)
            for table, before in self._parts.items()
            for name, part in vars(self.module)[table].items()
        )

    def put_back(self) -> None:
        """Let every name refer to what it did, and remove new ones."""
        own = {kind: (vars(self.module)[kind], before) for kind, before in self._parts.items()}
        new = {
            kind: {name: part for name, part in now.items() if self._stays(part, before.get(name))}
            for kind, (now, before) in own.items()
        }
        replaced = any(new.values())
        for kind, (now, before) in own.items():
            kept = {name: part for name, part in before.items() if name in now or not replaced}
            wanted = {**kept, **new[kind]}
            if now.keys() != wanted.keys() or any(now[name] is not part for name, part in wanted.items()):
                now.clear()
                now.update(wanted)
        for table, entries in self._tables:
            if len(table) != len(entries) or not all(map(_same_entry, table.items(), entries)):
                table.clear()
                table.update(entries)
        for names, members in self._sets:
            if names != members:
                names.clear()
                names.update(members)
        for contents in self._names:
            contents.put_back()

    def _stays(self, part: object, before: object) -> bool:
        return part is not None and before is None and id(part) not in self._known


def _keep_names(module: nn.Module) -> Iterator[Contents]:
    before = _read_attributes(module)
    yield Contents(partial(_read_attributes, module), before, partial(_write_attributes, module, before))
    if (slots := keep_slots(module)) is not None:
        yield slots
    if isinstance(module, torch.jit.ScriptModule) and (inner := getattr(module, "_c", None)) is not None:
        # The attributes of a module in TorchScript are kept outside of Python.
        described: Any = torch._C.ConcreteModuleType.from_jit_type(inner._type())
        tensors = {*module._parameters.keys(), *module._buffers.keys()}
        names = [name for name in described.get_attributes() if name not in _OWN | tensors]
        scripted = _read_scripted(inner, names)
        yield Contents(
            partial(_read_scripted, inner, names), scripted, partial(_write_scripted, inner, scripted)
        )


def _read_attributes(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in _OWN}


def _write_attributes(module: nn.Module, before: Mapping[str, object]) -> None:
    own = vars(module)
    for name in _read_attributes(module):
        del own[name]  # also what comes back below, so that the order is as before
    for name, value in before.items():
        # What was None before may be a submodule or parameter now.
        if not any(name in own.get(table, ()) for table in _PARTS):
            own[name] = value


def _same_entry(now: tuple[object, object], before: tuple[object, object]) -> bool:
    return now[0] == before[0] and now[1] is before[1]


def _read_scripted(inner: Any, names: list[str]) -> dict[str, object]:
    return {name: inner.getattr(name) for name in names}


def _write_scripted(inner: Any, before: Mapping[str, object]) -> None:
    for name, value in before.items():
        inner.setattr(name, value)
