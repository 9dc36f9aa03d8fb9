"""The contract of a statistic as checks: any split of the data, in any order, gives the whole's answer.

    from fno_telemetry.testing.statistics import check_statistic

    def test_my_statistic():
        check_statistic(MyStatistic())

Each check raises AssertionError with one line.
"""

import copy
import functools
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fno_telemetry import plugins
from fno_telemetry.records import Value
from fno_telemetry.statistics.activation import Activation, Layout
from fno_telemetry.statistics.contract import (
    Known,
    Statistic,
    Summary,
    Undefined,
    keys_of,
    merge_states,
    summarize_state,
    why_no_statistic,
)
from fno_telemetry.statistics.host_transfer import on_host
from fno_telemetry.statistics.over_processes import combine_states
from fno_telemetry.testing.promises import calling, require
from fno_telemetry.testing.subjects import (
    MERGED_OVER_BATCHES,
    OF_ACTIVATIONS,
    SHAPE,
    Data,
    example_data,
    make_bands,
    make_subject,
)

SPLITS = ((3, 3), (1, 5), (1, 2, 3), (1, 1, 1, 1, 1, 1))
"""Sizes of batches that the six samples are split into."""

_ORDINARY = "float32"
"""The name of data to which the numbers of every statistic of a tensor apply."""

TOLERANCE = 1e-6
"""Numbers of a split agree with those of the whole to this share of the largest number."""

Reference = Callable[[torch.Tensor], Mapping[str, float | None]]
"""The slow, obvious answer for a tensor of shape (samples, channels, height, width)."""


def check_statistic(statistic: Statistic, reference: Reference | None = None) -> None:
    """Check everything that a statistic promises; AssertionError says which promise it breaks.

    `reference` returns for a tensor every number that the statistic should give, from slow and obvious NumPy;
    it is for statistics of a "tensor", an "operator_output" or a "module_input" only.
    """
    check_declarations(statistic)
    if reference is not None:
        alone = statistic.of in OF_ACTIVATIONS
        require(alone, f"{statistic.name}: a reference is for statistics of a tensor")
        require(callable(reference), f"{statistic.name}: the reference is {reference!r}, not a function")
    for data in example_data():
        check_numbers(statistic, Data(data.name, data.tensor.clone()))
        check_nothing_changes(statistic, data)
        check_splits(statistic, data)
        if reference is not None:
            _check_reference(statistic, data, reference)
    check_empty(statistic)
    check_no_host_sync(statistic)


def check_declarations(statistic: Statistic) -> None:
    """Check its name, what it is of, its needs and its quantities."""
    with calling(f"an attribute of {type(statistic).__name__}"):
        name = getattr(statistic, "name", type(statistic).__name__)
        reason = why_no_statistic(statistic)
    require(reason is None, f"{name}: {reason}")
    require(statistic.name.isidentifier(), f"{name}: its name is no identifier")
    keys = keys_of(statistic)
    require(len(set(keys)) == len(keys), f"{name}: its `quantities` contain a name twice: {keys}")
    for needed in statistic.needs:
        known = plugins.names("statistics")
        require(
            needed in known, f"{name}: it needs {needed!r}, which is no statistic; known: {', '.join(known)}"
        )
    _check_names_are_new(statistic)


def _check_names_are_new(statistic: Statistic) -> None:
    """Check that it is not another one under a built-in name, and overwrites no built-in number."""
    for built_in in plugins.STATISTICS:
        other: Statistic = plugins.load("statistics", built_in)()
        if type(statistic) is type(other):
            continue
        require(
            statistic.name != built_in,
            f"{statistic.name}: a built-in statistic has this name; give it one of its own",
        )
        shared = [key for key in keys_of(statistic) if key in keys_of(other)]
        require(
            not shared,
            f"{statistic.name}: it gives {', '.join(shared)}, as the built-in statistic {built_in!r} does: "
            "one would overwrite the other, so the names of quantities must be new",
        )


def check_numbers(statistic: Statistic, data: Data) -> None:
    """Check that it gives exactly its quantities: numbers, or None with a reason in one line."""
    state = _measure(statistic, data)
    where = f"{statistic.name} of {data.name} data"
    if state is None:
        require(
            statistic.of != "tensor" or data.name != _ORDINARY,
            f"{where}: `measure` returned None, which means that the numbers do not apply; "
            "for this data they do",
        )
        return
    summary = _summarize(statistic, state, data)
    require(
        set(summary.stats) == set(keys_of(statistic)),
        f"{where}: it gives {sorted(summary.stats)} and declares {sorted(keys_of(statistic))}",
    )
    for key, value in summary.stats.items():
        if value is None:
            reason = summary.reasons.get(key, "")
            has_reason = isinstance(reason, str) and bool(reason.strip()) and reason.isprintable()
            require(has_reason, f"{where}: {key} is None without a reason")
        else:
            require(math.isfinite(value), f"{where}: {key} is {value!r}, which is no finite number")


def check_splits(statistic: Statistic, data: Data) -> None:
    """Check that any split of the data, merged in any order, gives the numbers of the whole.

    Kinds that are measured once are measured twice instead, which gives the same.
    """
    whole = _measure(statistic, data)
    if whole is None:
        return
    expected = _summarize(statistic, whole, data)
    if statistic.of not in MERGED_OVER_BATCHES:
        again = _measure(statistic, data)
        require(again is not None, f"{statistic.name} of {data.name} data: None when it is measured again")
        _assert_alike(statistic, data, "measured twice", _summarize(statistic, again, data), expected)
        return
    for sizes in SPLITS:
        states = [_measure(statistic, part) for part in data.split(sizes)]
        for order in _orders(states):
            merged = _merge(statistic, order)
            what = f"in batches of {', '.join(map(str, sizes))} samples"
            _assert_alike(statistic, data, what, _summarize(statistic, merged, data), expected)
        together = [*states, None]  # a process may have nothing
        with calling(f"combining the states of {statistic.name} over processes"):
            combined = combine_states(together)
        if not isinstance(combined, Undefined) or isinstance(whole, Undefined):
            what = f"on processes with {', '.join(map(str, sizes))} samples"
            _assert_alike(statistic, data, what, _summarize(statistic, combined, data), expected)
    with calling(f"pickling the state of {statistic.name}"):
        kept = pickle.loads(pickle.dumps(on_host(whole)))  # noqa: S301 - made in the line itself
    _assert_alike(statistic, data, "after a pickle", _summarize(statistic, kept, data), expected)


def check_nothing_changes(statistic: Statistic, data: Data) -> None:
    """Check that measuring alters no bit of the tensor, and merging neither of the states."""
    before = data.tensor.clone()
    state = _measure(statistic, data)
    same = torch.equal(before.nan_to_num(7.0), data.tensor.nan_to_num(7.0))
    require(same, f"{statistic.name}: measuring {data.name} data wrote into the tensor")
    if state is None or statistic.of not in MERGED_OVER_BATCHES:
        return
    with calling(f"copying the state of {statistic.name}"):
        kept = copy.deepcopy(state)
    _merge(statistic, [state, _measure(statistic, data)])
    one, other = _summarize(statistic, state, data), _summarize(statistic, kept, data)
    _assert_alike(statistic, data, "after it was merged into another", one, other)


def check_empty(statistic: Statistic) -> None:
    """Check that a batch without samples is undefined alone, and changes nothing when it is merged."""
    if statistic.of not in MERGED_OVER_BATCHES:
        return
    data = example_data()[2]
    nothing = Data("empty", data.tensor[:0])
    empty = _measure(statistic, nothing)
    state = _measure(statistic, data)
    if empty is None or state is None:
        return
    check_numbers(statistic, nothing)
    expected = _summarize(statistic, state, data)
    for order in ([state, empty], [empty, state]):
        merged = _summarize(statistic, _merge(statistic, order), data)
        _assert_alike(statistic, data, "merged with an empty batch", merged, expected)


def check_no_host_sync(statistic: Statistic) -> None:
    """Check that measuring looks at no value on the host, where that costs a synchronisation of the device.

    The tensor is on the CPU, but the activation claims another device.
    """
    if statistic.of not in OF_ACTIVATIONS:
        return
    for data in example_data():
        activation = _OnDevice(data.tensor, Layout(sample=0, channel=1, space=(2, 3)))
        with calling(f"`measure` of {statistic.name}, given {data.name} data,"), _NoLooking() as looking:
            statistic.measure(activation)
        seen = ", ".join(dict.fromkeys(looking.seen))
        what = f"{statistic.name}: measuring {data.name} data looks at a value on the host ({seen})"
        require(not seen, what)


class _OnDevice(Activation):
    """An activation of which every value is far away."""

    on_host = False


class _NoLooking(TorchDispatchMode):
    """Notes every function that brings a value to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func)
        if "_local_scalar_dense" in name or "is_nonzero" in name or name.startswith("aten.nonzero"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def _check_reference(statistic: Statistic, data: Data, reference: Reference) -> None:
    state = _measure(statistic, data)
    if state is None:
        return
    where = f"{statistic.name} of {data.name} data"
    found = _summarize(statistic, state, data).stats
    with calling(f"{where}: the reference"):
        told: object = reference(data.tensor.clone())
    if not isinstance(told, Mapping):
        raise AssertionError(f"{where}: the reference returned a {type(told).__name__}, not a mapping")
    require(
        set(told) == set(found),
        f"{where}: the reference gives {list(told)}, and the statistic {list(found)}",
    )
    for key, expected in told.items():
        value = found[key]
        require(
            expected is None or hasattr(expected, "__float__"),
            f"{where}: the reference says that {key} is {expected!r}, which is no number",
        )
        with calling(f"{where}: the reference's {key} as a number"):
            number = None if expected is None else float(expected)
        close = value == number or (
            value is not None and number is not None and math.isclose(value, number, rel_tol=1e-5)
        )
        require(close, f"{where}: {key} is {value}, the reference says {number}")


def _orders(states: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the states in a few orders: all of them where there are three or fewer."""
    if len(states) <= 3:
        yield from (list(order) for order in permutations(states))
    else:
        yield from (list(states), list(reversed(states)), [*states[::2], *states[1::2]])


def _merge(statistic: Statistic, states: Sequence[Any]) -> Any:
    for state in states:
        require(state is not None, f"{statistic.name}: it says nothing of a part, and something of the whole")
    with calling(f"`merge` of a state of {statistic.name}"):
        return functools.reduce(merge_states, states)


def _measure(statistic: Statistic, data: Data) -> Any:
    subject = make_subject(statistic.of, data)
    with calling(f"`measure` of {statistic.name}, given {data.name} data,"):
        return statistic.measure(subject)


def _summarize(statistic: Statistic, state: Any, data: Data) -> Summary:
    numbers: dict[str, Value] = {}
    for name in statistic.needs:
        with calling(f"the statistic {name!r}, which {statistic.name} needs,"):
            needed = plugins.load("statistics", name)()
            if needed.of == statistic.of:
                own = needed.measure(make_subject(needed.of, data))
                if own is not None:
                    numbers |= summarize_state(needed, own, Known(samples=SHAPE[0])).stats
    known = Known(numbers, {"sample_variation": 0.5}, SHAPE[0], make_bands())
    where = f"{statistic.name} of {data.name} data"
    with calling(f"{where}: `summarize`"):
        summary: object = summarize_state(statistic, on_host(state), known)
    if not isinstance(summary, Summary):
        raise AssertionError(f"{where}: `summarize` returned a {type(summary).__name__}, not a Summary")
    for part in (summary.stats, summary.reasons):
        require(isinstance(part, Mapping), f"{where}: its Summary holds {part!r}, which is no mapping")
    for key, value in summary.stats.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        require(value is None or is_number, f"{where}: {key} is {value!r}, which is no finite number")
    return summary


def _assert_alike(statistic: Statistic, data: Data, what: str, found: Summary, expected: Summary) -> None:
    where = f"{statistic.name} of {data.name} data, {what}"
    scale = max((abs(value) for value in expected.stats.values() if value is not None), default=0.0)
    for key, value in expected.stats.items():
        own = found.stats.get(key)
        if value is None or own is None or isinstance(value, int):
            alike = own == value
        else:
            alike = abs(own - value) <= TOLERANCE * max(scale, abs(value))
        require(alike, f"{where}: {key} is {own}, and {value} for all the data at once")
    for part in ("histogram", "log_histogram", "sketch"):
        require(
            getattr(found, part) == getattr(expected, part), f"{where}: the {part} is not that of the whole"
        )
