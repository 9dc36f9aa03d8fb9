"""Modules that a forward uses without calling them: for their tensors, or by a method other than forward."""

import inspect
import types
from collections.abc import Iterable, Mapping, Set

import torch
from torch import nn

_CALL = nn.Module._call_impl.__code__


class UncalledModules:
    """Notes the uses of modules that no hook reports, by the ids of the modules."""

    def __init__(self, model: nn.Module, paths: Mapping[int, tuple[str, ...]]) -> None:
        self.lent: set[int] = set()  # modules with whose tensors other code computed
        self.methods: dict[
            int, str
        ] = {}  # modules that computed in a method other than forward, with its name
        self._owners: dict[int, int] = {}  # by id of a parameter or buffer: the innermost module with a path
        self._codes: dict[types.CodeType, str] = {}
        self._paths = paths
        for module in model.modules():
            if id(module) not in paths:
                continue
            self._owners |= dict.fromkeys(map(id, (*module.parameters(), *module.buffers())), id(module))
            for cls in type(module).__mro__:
                if issubclass(cls, nn.Module) and cls is not nn.Module:
                    self._add_methods(cls)

    def note(
        self, tensors: Iterable[torch.Tensor], followed: bool, running: Set[int], calls: int = 0
    ) -> None:
        """Note which modules the running code uses when it passes `tensors` to a function or a module.

        `followed`: they descend from the input of the model. `running` has the modules that were called;
        `calls` is 1 where the innermost one has just been.
        """
        lent = {self._owners[id(one)] for one in tensors if id(one) in self._owners} - running - self.lent
        if not lent and not followed:
            return
        methods: dict[int, str] = {}
        own: set[int] = set()  # modules whose forward runs, called by its name
        frame = inspect.currentframe()
        while frame is not None and (calls or frame.f_code is not _CALL):
            calls -= frame.f_code is _CALL
            if (name := self._codes.get(frame.f_code)) is not None:
                module = id(frame.f_locals.get(frame.f_code.co_varnames[0]))
                methods[module] = name  # in the end the outermost one
                if name == "forward":
                    own.add(module)
            frame = frame.f_back
        self.lent |= lent - own
        if followed:
            for module, name in methods.items():
                if module not in running | own:
                    self.methods.setdefault(module, name)

    @property
    def lent_paths(self) -> frozenset[str]:
        """The canonical paths of `lent`."""
        return frozenset(self._paths[module][0] for module in self.lent)

    @property
    def methods_by_path(self) -> dict[str, str]:
        """The canonical paths of `methods`."""
        return {
            self._paths[module][0]: name for module, name in self.methods.items() if module in self._paths
        }

    def _add_methods(self, cls: type) -> None:
        for name, method in vars(cls).items():
            if isinstance(method, types.FunctionType) and method.__code__.co_argcount:
                self._codes[method.__code__] = name
