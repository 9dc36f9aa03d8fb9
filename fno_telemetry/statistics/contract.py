"""The contract of statistics: `measure` a subject, merge the states, `summarize` them into named numbers."""

import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol, Self, get_args, get_type_hints

from fno_telemetry.quantities import Quantity
from fno_telemetry.records import (
    BandAccuracy,
    Histogram,
    LogHistogram,
    ModeEnergy,
    OrderCoherence,
    SketchNote,
    Spectrum,
    Value,
)

Of = Literal[
    "tensor",
    "operator_output",
    "module_input",
    "spectral_input",
    "weights",
    "parameter_gradients",
    "output_gradient",
    "branch_sum",
    "residual_update",
    "block",
    "branch_gradients",
    "comparison",
    "block_spectra",
]
"""The kind of subject of a statistic; `fno_telemetry.statistics.subjects` lists the argument of `measure`."""

OF_MODULES: tuple[Of, ...] = (
    "tensor",
    "operator_output",
    "module_input",
    "spectral_input",
    "weights",
    "output_gradient",
    "parameter_gradients",
)
"""The kinds of subjects of a module output, in the order in which they are summarized."""

OF_TENSORS: tuple[Of, ...] = ("tensor", "operator_output")
"""The kinds of subjects of an input or output of the model, in the order in which they are summarized."""

OF_BLOCKS: tuple[Of, ...] = ("branch_sum", "residual_update", "block", "block_spectra", "branch_gradients")
"""The kinds of subjects of a block, in the order in which they are summarized."""

OF_WEIGHTS: tuple[Of, ...] = ("weights",)
"""The kinds of subjects that are the same in all processes of a training."""

OF_GRADIENTS: tuple[Of, ...] = ("parameter_gradients", "branch_gradients")
"""The kinds of subjects that are the same in all of them once the gradients are reduced."""

OF_MODEL: tuple[Of, ...] = ("comparison",)
"""The kinds of subjects of the whole model."""


class State(Protocol):
    """The result of a measurement: small tensors in a dataclass, on the device of the measured tensor.

    Merging the states of any split of the data, in any order, gives the state of the whole. A state whose
    fields add up inherits from `SummedState`.
    """

    def merge(self, other: Self) -> Any:
        """Return the state of both data sets together, or Undefined; changes neither state."""
        ...


Combining = Literal["sum", "largest", "smallest", "norm", "same", "state"]
"""How a field combines over processes: `norm` is the root of the sum of squares; `same` fields must be equal;
`state` is a state with rules of its own, Undefined or Empty."""


@dataclass(frozen=True)
class MergedBy:
    """The rule by which a field of a `SummedState` merges, if it does not add up.

    `over_processes` says the same of fields of several processes, where no function of two states can be
    called. It is known for `torch.maximum`, `torch.minimum`, `torch.hypot`, `max`, `min`, `operator.or_` and
    `operator.and_`; without one, the numbers of several processes are null.
    """

    rule: Callable[[Any, Any], Any]
    over_processes: Combining | None = None


@dataclass(frozen=True)
class SummedState:
    """A state whose fields add up, except fields like `low: Annotated[Tensor, MergedBy(minimum)]`."""

    def merge(self, other: Any) -> Any:
        """Return the state of both data sets together, field by field."""
        cls: Any = type(self)
        rules = _merge_rules(cls)
        return cls(**{name: rule(getattr(self, name), getattr(other, name)) for name, rule in rules.items()})


def _merge_rules(state: Any) -> dict[str, Callable[[Any, Any], Any]]:
    return {name: merged.rule for name, merged in list_rules(state).items()}


@cache
def list_rules(state: Any) -> dict[str, MergedBy]:
    """Return the rule of each field of a `SummedState`."""
    hints = get_type_hints(state, include_extras=True)
    named = {
        name: annotation
        for name, hint in hints.items()
        for annotation in getattr(hint, "__metadata__", ())
        if isinstance(annotation, MergedBy)
    }
    return {each.name: named.get(each.name, _ADDED) for each in dataclasses.fields(state)}


_ADDED = MergedBy(operator.add, "sum")


@dataclass(frozen=True)
class Summary:
    """The named numbers of a state, with a reason for each that is None."""

    stats: Mapping[str, Value] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    histogram: Histogram | None = None
    log_histogram: LogHistogram | None = None
    spectrum: Spectrum | None = None
    sketch: SketchNote | None = None
    mode_energy: ModeEnergy | None = None
    accuracy_bands: BandAccuracy | None = None
    accuracy_channels: tuple[Value, ...] | None = None
    accuracy_orders: tuple[OrderCoherence, ...] | None = None
    channel_rms: tuple[Value, ...] | None = None


@dataclass(frozen=True)
class Known:
    """The numbers that are known when a state is summarized.

    `numbers` are those of the needed statistics, for the same place; `input` are those of the model's input,
    None for the input itself; `samples` is the number of samples of the whole capture. `bands` is how the
    output compares with the target by frequency, or the reason why it is not known; None without a target.
    `processes` is the number of processes whose losses have a mean that is the loss of all.
    """

    numbers: Mapping[str, Value] = field(default_factory=dict)
    input: Mapping[str, Value] | None = None
    samples: int = 0
    bands: BandAccuracy | str | None = None
    processes: int = 1


class Statistic(Protocol):
    """A statistic; other packages add theirs with the entry point `fno_telemetry.statistics`."""

    @property
    def name(self) -> str:
        """The name of the plug-in, which other statistics list in `needs`."""
        ...

    @property
    def of(self) -> Of:
        """The kind of subject that it measures."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the statistics whose numbers `summarize` reads; they are measured too."""
        ...

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All numbers that it returns, in the order of views."""
        ...

    def measure(self, subject: Any) -> Any:
        """Return the state of a subject.

        Returns Undefined with a reason if this subject cannot be measured, Empty if it has no elements, and
        None if the numbers do not apply to this subject at all. Never changes a tensor.
        """
        ...

    def summarize(self, state: Any, known: Known) -> Summary:
        """Return the numbers of a state in host memory."""
        ...


@dataclass(frozen=True)
class Undefined:
    """The state of a subject that cannot be measured; merged with any other state it stays undefined."""

    reason: str

    def merge(self, other: Any) -> Any:
        """Return this state; of two reasons always the same one, in either order."""
        return other if isinstance(other, Undefined) and other.reason < self.reason else self


@dataclass(frozen=True)
class Empty:
    """The state of a tensor without elements: undefined alone, ignored when merged with another state."""

    reason: str = "the tensor has no elements"

    def merge(self, other: Any) -> Any:
        """Return the other state."""
        return other


def keys_of(statistic: Statistic) -> tuple[str, ...]:
    """Return the names of the numbers of a statistic."""
    return tuple([quantity.name for quantity in statistic.quantities])


def why_no_statistic(statistic: Any) -> str | None:
    """Return in one line why this object is not a statistic; None if it is one."""
    for attribute in ("name", "of", "needs", "quantities", "measure", "summarize"):
        if not hasattr(statistic, attribute):
            return f"it has no `{attribute}`"
    if not isinstance(statistic.name, str):
        return f"its `name` is {statistic.name!r}; expected a text"
    if statistic.of not in get_args(Of):
        return f"its `of` is {statistic.of!r}; expected one of {', '.join(get_args(Of))}"
    if not _is_tuple_of(str, statistic.needs):
        return f"its `needs` is {statistic.needs!r}; expected a tuple of names"
    if not statistic.quantities or not _is_tuple_of(Quantity, statistic.quantities):
        return "its `quantities` is not a tuple of Quantity with at least one element"
    for method in ("measure", "summarize"):
        if not callable(getattr(statistic, method)):
            return f"its `{method}` is not a method"
    return None


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, kind) for one in value)


def merge_states(first: Any, second: Any) -> Any:
    """Merge two states of one statistic, each of which may be Undefined or Empty."""
    return second.merge(first) if isinstance(second, Undefined | Empty) else first.merge(second)


def summarize_state(statistic: Statistic, state: Any, known: Known | None = None) -> Summary:
    """Summarize a state; if it is Undefined or Empty, every number is None for that reason."""
    if isinstance(state, Undefined | Empty):
        keys = keys_of(statistic)
        return Summary(dict.fromkeys(keys), dict.fromkeys(keys, state.reason))
    return statistic.summarize(state, known or Known())
