"""What a statistic is: `measure` a tensor, `merge` states, `summarize` them into named numbers."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from fno_telemetry.records import Histogram, LogHistogram, SketchNote, Spectrum, Value
from fno_telemetry.statistics.activation import Activation


class State(Protocol):
    """What one measurement leaves: small tensors in a dataclass, on the tensor's device.

    Merging the states of any split of the data gives the state of the whole; no order is assumed.
    """

    def merge(self, other: Self) -> Self:
        """Return the state of both data sets together; neither state is changed."""
        ...


@dataclass(frozen=True)
class Summary:
    """Named numbers out of a state, with the reason for each that is None."""

    stats: Mapping[str, Value] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    histogram: Histogram | None = None
    log_histogram: LogHistogram | None = None
    spectrum: Spectrum | None = None
    sketch: SketchNote | None = None


class Summarizer(Protocol):
    """What turns a state into named numbers."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every number that it gives, in the order shown."""
        ...

    def summarize(self, state: Any, known: Mapping[str, Value]) -> Summary:
        """Return the numbers; the state is on the host, `known` holds what earlier statistics said."""
        ...


class Statistic(Summarizer, Protocol):
    """One pass over the data. Third parties add theirs by the entry point `fno_telemetry.statistics`."""

    @property
    def name(self) -> str:
        """The name that its states go by."""
        ...

    def measure(self, activation: Activation) -> Any:
        """Return a State; Undefined with the reason why this tensor has none; Empty when it has no elements.

        Never alters the tensor.
        """
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
    """The state of a tensor without elements: undefined alone, and nothing beside any other state."""

    reason: str = "the tensor has no elements"

    def merge(self, other: Any) -> Any:
        """Return the other state."""
        return other


def merge_states(first: Any, second: Any) -> Any:
    """Merge two states of one statistic, where either may be Undefined or Empty."""
    return second.merge(first) if isinstance(second, Undefined | Empty) else first.merge(second)


def summarize_state(statistic: Summarizer, state: Any, known: Mapping[str, Value]) -> Summary:
    """Summarize a state that may be Undefined or Empty: then every key is None with that reason."""
    if isinstance(state, Undefined | Empty):
        return Summary(dict.fromkeys(statistic.keys), dict.fromkeys(statistic.keys, state.reason))
    return statistic.summarize(state, known)


def on_host(state: Any) -> Any:
    """Return the state, or a tuple, list or dict of states, with every tensor in host memory.

    Tensors travel together, one transfer for each precision: hand over all states of a capture at once.
    """
    found: dict[torch.dtype, list[torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "cpu":
            found.setdefault(tensor.dtype, []).append(tensor)
        return tensor

    _mapped(state, note)
    arrived = {dtype: iter(transfer(tensors)) for dtype, tensors in found.items()}

    def taken(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.device.type == "cpu" else next(arrived[tensor.dtype])

    return _mapped(state, taken)


def transfer(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies in host memory of tensors of one dtype and device, by a single transfer."""
    packed = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu()
    # A clone each, so that no tensor keeps the memory of all.
    parts = torch.split(packed, [tensor.numel() for tensor in tensors])
    return [part.clone().reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _mapped(state: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return the state with `change` applied to every tensor, always in the same order."""
    if isinstance(state, torch.Tensor):
        return change(state)
    if isinstance(state, tuple | list):
        return type(state)([_mapped(part, change) for part in state])
    if isinstance(state, dict):
        return {key: _mapped(part, change) for key, part in state.items()}
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        moved = {f.name: _mapped(getattr(state, f.name), change) for f in dataclasses.fields(state) if f.init}
        return dataclasses.replace(state, **moved)
    return state
