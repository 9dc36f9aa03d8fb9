"""What a statistic is: `measure` a subject, merge the states, `summarize` them into named numbers."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol, Self, get_args, get_type_hints

import torch

from fno_telemetry.quantities import Quantity
from fno_telemetry.records import Histogram, LogHistogram, ModeEnergy, SketchNote, Spectrum, Value

Of = Literal[
    "tensor",
    "spectral_input",
    "weights",
    "parameter_gradients",
    "output_gradient",
    "branch_sum",
    "residual_update",
    "block",
    "branch_gradients",
]
"""What a statistic is of; `fno_telemetry.statistics.subjects` says what `measure` is given for each."""

OF_MODULES: tuple[Of, ...] = (
    "tensor",
    "spectral_input",
    "weights",
    "output_gradient",
    "parameter_gradients",
)
"""What the numbers of one output of a module are of, in the order in which they are summarized."""

OF_BLOCKS: tuple[Of, ...] = ("branch_sum", "residual_update", "block", "branch_gradients")
"""The same for the numbers of a block."""


class State(Protocol):
    """What one measurement leaves: small tensors in a dataclass, on the tensor's device.

    Merging the states of any split of the data gives the state of the whole, in any order. A state that only
    adds up inherits from `SummedState`.
    """

    def merge(self, other: Self) -> Any:
        """Return the state of both data sets together, or Undefined; neither state is changed."""
        ...


@dataclass(frozen=True)
class MergedBy:
    """How a field of a `SummedState` merges, where it does not add up."""

    rule: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class SummedState:
    """A state whose fields add up; any other rule is named: `low: Annotated[Tensor, MergedBy(minimum)]`."""

    def merge(self, other: Any) -> Any:
        """Return the state of both data sets together, field by field."""
        cls: Any = type(self)
        rules = _merge_rules(cls)
        return cls(**{name: rule(getattr(self, name), getattr(other, name)) for name, rule in rules.items()})


@cache
def _merge_rules(state: type[Any]) -> dict[str, Callable[[Any, Any], Any]]:
    hints = get_type_hints(state, include_extras=True)
    named = {
        name: found.rule
        for name, hint in hints.items()
        for found in getattr(hint, "__metadata__", ())
        if isinstance(found, MergedBy)
    }
    return {each.name: named.get(each.name, operator.add) for each in dataclasses.fields(state)}


@dataclass(frozen=True)
class Summary:
    """Named numbers out of a state, with the reason for each that is None."""

    stats: Mapping[str, Value] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    histogram: Histogram | None = None
    log_histogram: LogHistogram | None = None
    spectrum: Spectrum | None = None
    sketch: SketchNote | None = None
    mode_energy: ModeEnergy | None = None


@dataclass(frozen=True)
class Known:
    """What is known when a state is summarized.

    `numbers` are those of the statistics that it needs, of the same subject; `input` are those of the model's
    input, None where the input itself is summarized; `samples` is how many were run in all.
    """

    numbers: Mapping[str, Value] = field(default_factory=dict)
    input: Mapping[str, Value] | None = None
    samples: int = 0


class Statistic(Protocol):
    """One pass over the data. Other packages add theirs by the entry point `fno_telemetry.statistics`."""

    @property
    def name(self) -> str:
        """The name of the plug-in, by which other statistics need it."""
        ...

    @property
    def of(self) -> Of:
        """What it measures."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the statistics whose numbers `summarize` reads; they are measured as well."""
        ...

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """Every number that it gives, in the order shown."""
        ...

    def measure(self, subject: Any) -> Any:
        """Return a State of what the subject holds.

        Undefined with the reason why this subject has none; Empty when it has no elements; None when these
        numbers do not belong to such a subject at all. Never alters a tensor.
        """
        ...

    def summarize(self, state: Any, known: Known) -> Summary:
        """Return the numbers; the state is in host memory."""
        ...


@dataclass(frozen=True)
class Undefined:
    """The state of something that cannot be measured; whatever it merges with becomes undefined too."""

    reason: str

    def merge(self, other: Any) -> Any:
        """Return this reason; of two reasons the same one in either order."""
        return other if isinstance(other, Undefined) and other.reason < self.reason else self


@dataclass(frozen=True)
class Empty:
    """The state of a tensor without elements: undefined alone, and nothing next to any other state."""

    reason: str = "the tensor has no elements"

    def merge(self, other: Any) -> Any:
        """Return the other state."""
        return other


def keys_of(statistic: Statistic) -> tuple[str, ...]:
    """Return the names of its numbers."""
    return tuple(quantity.name for quantity in statistic.quantities)


def why_no_statistic(statistic: Any) -> str | None:
    """Return what this object lacks to be a statistic, in one line; None when it has everything."""
    for attribute in ("name", "of", "needs", "quantities", "measure", "summarize"):
        if not hasattr(statistic, attribute):
            return f"it has no {attribute}"
    if statistic.of not in get_args(Of):
        return f"it is of {statistic.of!r}; expected one of {', '.join(get_args(Of))}"
    if isinstance(statistic.needs, str) or not all(isinstance(name, str) for name in statistic.needs):
        return f"its needs are {statistic.needs!r}; a tuple of names was expected"
    if not statistic.quantities or not all(isinstance(one, Quantity) for one in statistic.quantities):
        return "its quantities are no tuple of Quantity"
    return None


def merge_states(first: Any, second: Any) -> Any:
    """Merge two states of one statistic, where either may be Undefined or Empty."""
    return second.merge(first) if isinstance(second, Undefined | Empty) else first.merge(second)


def summarize_state(statistic: Statistic, state: Any, known: Known | None = None) -> Summary:
    """Summarize a state that may be Undefined or Empty: then every number is None with that reason."""
    if isinstance(state, Undefined | Empty):
        keys = keys_of(statistic)
        return Summary(dict.fromkeys(keys), dict.fromkeys(keys, state.reason))
    return statistic.summarize(state, known or Known())


def on_host(state: Any) -> Any:
    """Return the state, or a tuple, list or dict of states, with every tensor in host memory.

    Tensors travel together, one transfer for each precision: hand over all states of a capture at once.
    """
    found: dict[torch.dtype, list[torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cpu":
            found.setdefault(tensor.dtype, []).append(tensor)
        return tensor

    _map_tensors(state, note)
    arrived = {dtype: iter(transfer(tensors)) for dtype, tensors in found.items()}

    def take(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.device.type == "cpu" else next(arrived[tensor.dtype])

    return _map_tensors(state, take)


def transfer(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies in host memory of tensors of one dtype and device, by a single transfer."""
    packed = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu()
    # A clone each, so that no tensor keeps the memory of all.
    parts = torch.split(packed, [tensor.numel() for tensor in tensors])
    return [part.clone().reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _map_tensors(state: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the state with `change` applied to every tensor, always in the same order."""
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, tuple | list):
        return type(state)([_map_tensors(part, change) for part in state])
    if isinstance(state, dict):
        return {key: _map_tensors(part, change) for key, part in state.items()}
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = [each.name for each in dataclasses.fields(state) if each.init]
        moved = {name: _map_tensors(getattr(state, name), change) for name in fields}
        return dataclasses.replace(state, **moved)
    return state
