"""A pickle read as data: what it builds of numbers, text and containers, while nothing that it names is run.

A pickle is a program for a small machine [pickletools]. The machine here builds plain containers; a name is
answered by the caller's short list, or else by a stand-in. Nothing is imported or called for a file.
"""

import argparse
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from fno_telemetry.sources.pickle_bounds import Effort, check_nesting
from fno_telemetry.sources.pickled_objects import Answer, Name, PickleRefused, StandIn, StateDict

_LONGEST_NUMBER = 1024  # bytes of an integer; longer ones cannot be printed
_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")  # surrogates, which cannot be printed

_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_GIVEN = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING"),
        *("BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
"""Steps that put their own argument on the stack."""

_CONTAINERS: Mapping[str, type] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "collections.OrderedDict": StateDict,
    "collections.Counter": dict,
}
"""Containers made by a call, which hash what they are given."""


class Readable(Protocol):
    """What a pickle is read from."""

    def read(self, count: int, /) -> bytes:
        """Return the next bytes, fewer at the end."""
        ...

    def readline(self) -> bytes:
        """Return the next bytes up to a line break."""
        ...


def read_pickle(stream: Readable, names: Mapping[str, object], load: Callable[[object], object]) -> object:
    """Return what the pickle at the stream's position builds, and leave the stream after it.

    `names` has what dotted names are answered by: an `Answer` is called, anything else is put in place.
    `load` answers the references to what is stored outside of the pickle. PickleRefused for what is out of
    bounds; of a damaged pickle, any error.
    """
    machine = _Machine(names, load)
    for step, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]  # the two methods are enough
        machine._take(step.name, argument)
    content = machine._stack[-1]
    check_nesting(content, machine._effort.steps)
    return content


class _Machine:
    """The stacks and the memory of one reading; methods without an underscore are its steps."""

    def __init__(self, names: Mapping[str, object], load: Callable[[object], object]) -> None:
        self._names = names
        self._load = load
        self._effort = Effort()
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each mark
        self._memory: dict[int, Any] = {}

    def _take(self, name: str, argument: Any) -> None:
        """Carry out one step."""
        self._effort.spend(1)
        if name in _GIVEN:
            self._push(_printable(argument))
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise PickleRefused(f"it has the step {name}, which no file of tensors needs")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _items(self) -> list[Any]:
        """Return what is above the last mark, and take both away."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _find(self, module: str, member: str) -> object:
        """Return what a name is answered by; names of Python 2 are translated."""
        module, member = NAME_MAPPING.get((module, member), (IMPORT_MAPPING.get(module, module), member))
        path = f"{module}.{member}"
        return self._names.get(path, Name(path))

    def _call(self, target: object, arguments: Any) -> None:
        """Put what a call makes on the stack: of an `Answer` its result, of anything else a stand-in."""
        if not isinstance(arguments, tuple):
            raise PickleRefused("it calls something without a tuple of arguments")
        if isinstance(target, Answer):
            self._effort.spend_on_arguments(arguments)
            made = target.function(*arguments)
        elif isinstance(target, Name) and target.path in _CONTAINERS:
            made = self._fill(_CONTAINERS[target.path], *arguments)
        else:
            self._effort.spend(len(arguments))
            path = target.path if isinstance(target, Name) else type(target).__name__
            made = StandIn(target.name if isinstance(target, StandIn) else path, arguments)
        self._push(made)

    def _fill(self, kind: type, items: Iterable[Any] = ()) -> object:
        """Return a container of this kind that holds the items: of a dict, pairs of key and value."""
        items = list(items.items()) if isinstance(items, dict) else list(items)
        self._effort.spend(len(items))
        for item in items:
            self._effort.check_key(item[0] if issubclass(kind, dict) else item)
        made: object = kind(items)
        return made

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise PickleRefused(f"it sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._effort.check_key(key)] = value

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target += items
        elif not isinstance(target, StandIn):
            raise PickleRefused(f"it appends to a {type(target).__name__}")

    def stop(self, _: object) -> None: ...

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def pop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def pop_mark(self, _: object) -> None:
        self._items()

    def dup(self, _: object) -> None:
        self._push(self._stack[-1])

    def put(self, position: Any) -> None:
        self._memory[position] = self._stack[-1]

    def memoize(self, _: object) -> None:
        self._memory[len(self._memory)] = self._stack[-1]

    def get(self, position: Any) -> None:
        self._push(self._memory[position])

    def empty_list(self, _: object) -> None:
        self._push([])

    def empty_dict(self, _: object) -> None:
        self._push({})

    def empty_set(self, _: object) -> None:
        self._push(set())

    def list_(self, _: object) -> None:
        self._push(self._items())

    def dict_(self, _: object) -> None:
        items = self._items()
        self._push({})
        self._set_items(items)

    def frozenset_(self, _: object) -> None:
        self._push(self._fill(frozenset, self._items()))

    def tuple_(self, _: object) -> None:
        self._push(tuple(self._items()))

    def tuple1(self, _: object) -> None:
        self._push((self._stack.pop(),))

    def tuple2(self, _: object) -> None:
        last = self._stack.pop()
        self._push((self._stack.pop(), last))

    def tuple3(self, _: object) -> None:
        last, middle = self._stack.pop(), self._stack.pop()
        self._push((self._stack.pop(), middle, last))

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self._items())

    def additems(self, _: object) -> None:
        items = self._items()
        if isinstance(self._stack[-1], set):
            self._stack[-1].update(map(self._effort.check_key, items))
        elif not isinstance(self._stack[-1], StandIn):
            raise PickleRefused(f"it adds to a {type(self._stack[-1]).__name__}")

    def setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def setitems(self, _: object) -> None:
        self._set_items(self._items())

    def global_(self, text: str) -> None:
        self._push(self._find(*text.split(" ", 1)))

    def stack_global(self, _: object) -> None:
        member, module = self._stack.pop(), self._stack.pop()
        self._push(self._find(str(module), str(member)))

    def reduce(self, _: object) -> None:
        arguments, target = self._stack.pop(), self._stack.pop()
        self._call(target, arguments)

    def newobj_ex(self, _: object) -> None:
        self._stack.pop()  # its keywords
        self.reduce(None)

    def inst(self, text: str) -> None:
        arguments = self._items()
        self._call(self._find(*text.split(" ", 1)), (*arguments,))

    def obj(self, _: object) -> None:
        target, *arguments = self._items()
        self._call(target, (*arguments,))

    def build(self, _: object) -> None:
        """Give an object its state: a `Namespace` or a stand-in; any other does without."""
        state, target = self._stack.pop(), self._stack[-1]
        self._effort.spend_on_arguments((state,))
        if isinstance(target, argparse.Namespace) and isinstance(state, dict):
            vars(target).update({key: value for key, value in state.items() if isinstance(key, str)})
        elif hasattr(type(target), "take_state"):
            target.take_state(state)

    def binpersid(self, _: object) -> None:
        self._push(self._load(self._stack.pop()))


_ALIKE: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.stop),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "NEWOBJ": _Machine.reduce,
}
_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **_ALIKE,
    **{name.rstrip("_").upper(): step for name, step in vars(_Machine).items() if name[0] != "_"},
}


def _printable(value: Any) -> Any:
    """Return a number or text as a message can show it; PickleRefused for an endless number."""
    if isinstance(value, int) and value.bit_length() > 8 * _LONGEST_NUMBER:
        raise PickleRefused(f"it has an integer of more than {_LONGEST_NUMBER} bytes")
    if isinstance(value, str) and not value.isascii() and _HALF_OF_A_PAIR.search(value):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
