"""The contract of a statistic as checks: any split of the data, in any order, gives the whole's answer.

    from fno_telemetry.testing.statistics import check_statistic

    def test_my_statistic():
        check_statistic(MyStatistic())

Each check raises AssertionError with one line.
"""

import copy
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
    Empty,
    Known,
    Statistic,
    Summary,
    Undefined,
    keys_of,
    merge_states,
    on_host,
    summarize_state,
    why_no_statistic,
)
from fno_telemetry.testing.promises import require
from fno_telemetry.testing.subjects import MERGED_OVER_BATCHES, SHAPE, Data, example_data, make_subject

SPLITS = ((3, 3), (1, 5), (1, 2, 3), (1, 1, 1, 1, 1, 1))
"""Sizes of batches that the six samples are split into."""

TOLERANCE = 1e-6
"""Numbers of a split agree with those of the whole to this share of the largest number."""

Reference = Callable[[torch.Tensor], Mapping[str, float | None]]
"""The slow, obvious answer for a tensor of shape (samples, channels, height, width)."""


def check_statistic(statistic: Statistic, reference: Reference | None = None) -> None:
    """Check everything that a statistic promises; AssertionError says which promise it breaks.

    `reference` returns for a tensor the numbers that the statistic should give, from slow and obvious NumPy;
    it is asked for statistics of a "tensor" only.
    """
    check_declarations(statistic)
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
    name = getattr(statistic, "name", type(statistic).__name__)
    reason = why_no_statistic(statistic)
    require(reason is None, f"{name}: {reason}")
    require(statistic.name.isidentifier(), f"{name}: its name is no identifier")
    keys = keys_of(statistic)
    require(len(set(keys)) == len(keys), f"{name}: a quantity stands twice in {keys}")
    for needed in statistic.needs:
        known = plugins.names("statistics")
        require(
            needed in known, f"{name}: it needs {needed!r}, which is no statistic; known: {', '.join(known)}"
        )


def check_numbers(statistic: Statistic, data: Data) -> None:
    """Check that it gives exactly its quantities: numbers, or None with a reason in one line."""
    state = statistic.measure(make_subject(statistic.of, data))
    if state is None:
        return
    summary = _summarize(statistic, state, data)
    where = f"{statistic.name} of {data.name} data"
    require(
        set(summary.stats) == set(keys_of(statistic)),
        f"{where}: it gives {sorted(summary.stats)} and declares {sorted(keys_of(statistic))}",
    )
    for key, value in summary.stats.items():
        if value is None:
            reason = summary.reasons.get(key, "")
            require(bool(reason.strip()) and reason.isprintable(), f"{where}: {key} is None without a reason")
        else:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            require(
                is_number and math.isfinite(value), f"{where}: {key} is {value!r}, which is no finite number"
            )


def check_splits(statistic: Statistic, data: Data) -> None:
    """Check that any split of the data, merged in any order, gives the numbers of the whole.

    Kinds that are measured once are measured twice instead, which gives the same.
    """
    whole = statistic.measure(make_subject(statistic.of, data))
    if whole is None:
        return
    expected = _summarize(statistic, whole, data)
    if statistic.of not in MERGED_OVER_BATCHES:
        again = statistic.measure(make_subject(statistic.of, data))
        _assert_alike(statistic, data, "measured twice", _summarize(statistic, again, data), expected)
        return
    for sizes in SPLITS:
        states = [statistic.measure(make_subject(statistic.of, part)) for part in data.split(sizes)]
        for order in _orders(states):
            merged = _merge(statistic, order)
            what = f"in batches of {', '.join(map(str, sizes))} samples"
            _assert_alike(statistic, data, what, _summarize(statistic, merged, data), expected)
    kept = pickle.loads(pickle.dumps(on_host(whole)))  # noqa: S301 - made in the line itself
    _assert_alike(statistic, data, "after a pickle", _summarize(statistic, kept, data), expected)


def check_nothing_changes(statistic: Statistic, data: Data) -> None:
    """Check that measuring alters no bit of the tensor, and merging neither of the states."""
    before = data.tensor.clone()
    state = statistic.measure(make_subject(statistic.of, data))
    same = torch.equal(before.nan_to_num(7.0), data.tensor.nan_to_num(7.0))
    require(same, f"{statistic.name}: measuring {data.name} data wrote into the tensor")
    if state is None or statistic.of not in MERGED_OVER_BATCHES:
        return
    kept = copy.deepcopy(state)
    _merge(statistic, [state, statistic.measure(make_subject(statistic.of, data))])
    one, other = _summarize(statistic, state, data), _summarize(statistic, kept, data)
    _assert_alike(statistic, data, "after it was merged into another", one, other)


def check_empty(statistic: Statistic) -> None:
    """Check that a batch without samples is undefined alone, and changes nothing when it is merged."""
    if statistic.of not in MERGED_OVER_BATCHES:
        return
    data = example_data()[2]
    nothing = Data("empty", data.tensor[:0])
    empty = statistic.measure(make_subject(statistic.of, nothing))
    state = statistic.measure(make_subject(statistic.of, data))
    if empty is None or state is None:
        return
    check_numbers(statistic, nothing)
    expected = _summarize(statistic, state, data)
    for order in ([state, empty], [empty, state]):
        merged = _summarize(statistic, _merge(statistic, order), data)
        _assert_alike(statistic, data, "merged with an empty batch", merged, expected)


def check_no_host_sync(statistic: Statistic) -> None:
    """Check that measuring looks at no value on the host, where that costs a synchronisation of the device.

    The tensor is on the CPU, and the activation is told that it is not.
    """
    if statistic.of != "tensor":
        return
    for data in example_data():
        activation = _OnDevice(data.tensor, Layout(sample=0, channel=1, space=(2, 3)))
        with _NoLooking() as looking:
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
    require(statistic.of == "tensor", f"{statistic.name}: a reference is for statistics of a tensor")
    found = _summarize(statistic, statistic.measure(make_subject("tensor", data)), data).stats
    for key, expected in reference(data.tensor).items():
        value = found[key]
        close = value == expected or (
            value is not None and expected is not None and math.isclose(value, expected, rel_tol=1e-5)
        )
        require(
            close, f"{statistic.name} of {data.name} data: {key} is {value}, the reference says {expected}"
        )


def _orders(states: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the states in a few orders: all of them where there are three or fewer."""
    if len(states) <= 3:
        yield from (list(order) for order in permutations(states))
    else:
        yield from (list(states), list(reversed(states)), [*states[::2], *states[1::2]])


def _merge(statistic: Statistic, states: Sequence[Any]) -> Any:
    merged = states[0]
    for state in states[1:]:
        require(state is not None, f"{statistic.name}: it says nothing of a part, and something of the whole")
        merged = merge_states(merged, state)
    return merged


def _summarize(statistic: Statistic, state: Any, data: Data) -> Summary:
    numbers: dict[str, Value] = {}
    for name in statistic.needs:
        needed = plugins.load("statistics", name)()
        if needed.of == statistic.of:
            own = needed.measure(make_subject(needed.of, data))
            if own is not None:
                numbers |= summarize_state(needed, own, Known(samples=SHAPE[0])).stats
    known = Known(numbers, {"sample_variation": 0.5}, SHAPE[0])
    if isinstance(state, Undefined | Empty):
        return summarize_state(statistic, state, known)
    return statistic.summarize(on_host(state), known)


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
