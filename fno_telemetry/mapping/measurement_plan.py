"""The measurement plan of a model: what its forward calls, and where everything that is measured appears.

With a plan, a forward is measured by plain hooks on modules. Functions are counted only in forwards that
compute something to be measured outside of modules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import NoneType
from typing import Protocol

from torch import nn

from fno_telemetry.isolation.tensor_values import count_writes
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.tracing.appearances import Appearance, Formula, Seen
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Event,
    Padded,
    ResidualAdded,
)
from fno_telemetry.tracing.fourier_calls import KeptModes
from fno_telemetry.tracing.module_calls import Call, paths_by_module, written_class
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.tensor_shapes import read_shape

Settings = tuple[tuple[object, ...], ...]
"""Names and values."""


@dataclass(frozen=True, eq=False)
class SpectralCall:
    """What a spectral call keeps of a field whose first input has this shape, without its first axis.

    `settings` are those of the module then. `available` are the numbers of frequencies that the field has.
    `decided` says whether every mode was seen to be kept or removed; a field without some frequencies does
    not tell.
    """

    shape: tuple[int, ...]
    settings: Settings
    modes: KeptModes | None
    available: tuple[int, ...]
    selects: bool = False  # it chooses modes by their size
    decided: bool = True


@dataclass(frozen=True, eq=False)
class PlannedCall:
    """A module call; calls are in the order in which they start, and call 0 is the whole batch."""

    path: str
    parent: int  # the index of the call around it
    ranks: tuple[int, ...] = ()  # of the tensors that it returns; -1 for one without a shape
    overwrites: bool = False  # it writes into its own input
    class_name: str = ""
    functions: tuple[str, ...] = ()  # the names of those that its own code calls
    counts_other_writes: bool = False  # torch counts writes elsewhere in the memory of its input
    own_transforms: int = 0
    spectral: SpectralCall | None = None


@dataclass(frozen=True)
class Wanted:
    """A tensor that is needed, where it appears first, and whether it is overwritten before it is used."""

    appearance: Appearance
    copied: bool


@dataclass(frozen=True)
class PlannedProduct:
    """Wanted tensors, by position among them, and numbers; all are multiplied."""

    tensors: tuple[int, ...]
    numbers: tuple[float, ...]


PlannedFormula = tuple[PlannedProduct, ...]
"""A sum of products; () for a tensor that is not needed, or does not exist."""


@dataclass(frozen=True)
class PlannedEnd:
    """A module call ends."""

    call: int
    formulas: tuple[PlannedFormula, ...] = ()


@dataclass(frozen=True)
class PlannedActivation:
    """An activation function is called in the forward of the call `parent`."""

    parent: int
    name: str
    number: int
    path: str
    formulas: tuple[PlannedFormula, ...]


@dataclass(frozen=True)
class PlannedBranches:
    """A spectral and a local branch are added: see `BranchesAdded`, where the formulas are listed too."""

    parent: int
    spectral: tuple[int, ...]
    local: tuple[int, ...]
    order: int
    spans_blocks: bool
    formulas: tuple[PlannedFormula, ...]


@dataclass(frozen=True)
class PlannedResidual:
    """A block's input is added: see `ResidualAdded`, where the formulas are listed too."""

    parent: int
    spectral: tuple[int, ...]
    order: int
    formulas: tuple[PlannedFormula, ...]


PlannedEvent = PlannedEnd | PlannedActivation | PlannedBranches | PlannedResidual


@dataclass(frozen=True, eq=False)
class MeasurementPlan:
    """How the forwards of a model are measured; made once by `fno_telemetry.plan`.

    It holds for batches of any size, and for other models of the same structure, such as other checkpoints.
    """

    model_map: ModelMap
    calls: tuple[PlannedCall, ...]
    events: tuple[PlannedEvent, ...]
    wanted: tuple[Wanted, ...]
    pads: tuple[Padded, ...] = ()
    field_shapes: tuple[tuple[int, ...], ...] = ()  # of its batch: see `list_field_shapes`
    why_traced: str | None = None  # why every forward has to be followed function by function
    differentiates: bool = False  # the forward needs gradients
    has_homeless_transforms: bool = False  # Fourier transforms are called outside of its modules
    lent: frozenset[str] = frozenset()  # modules with whose tensors other code computes
    methods: Mapping[str, str] = field(default_factory=dict)  # by path: the method by which a module is run

    def explain_misfit(self, model: nn.Module) -> str | None:
        """Return why the plan does not fit a model; None if the model has all modules that are called."""
        paths = paths_by_module(model)
        classes = {path: written_class(m).__name__ for m in model.modules() for path in paths.get(id(m), ())}
        for call in self.calls[1:]:
            if (name := classes.get(call.path)) != call.class_name:
                place = f"module {call.path!r}" if call.path else "the model"
                own = f"has {name} as {place}" if name else f"has no {place}"
                return (
                    f"the plan was made for another model, with {call.class_name} as {place}; this one {own}"
                )
        return None


class _MakesEvent(Protocol):
    def __call__(self, *, formulas: tuple[PlannedFormula, ...]) -> PlannedEvent: ...


@dataclass(eq=False)
class _Draft:
    """An event as traced; `ended` is the moment of the end of a call."""

    make: _MakesEvent
    formulas: tuple[Formula, ...] = ()
    needed: tuple[bool, ...] = ()  # by formula; what is not known cannot be planned
    ended: int | None = None
    number: int | None = None  # of a sum of branches, in order of report
    where: str = ""


class PlanRecorder:
    """Listens to a trace and keeps what a plan is made of, but no tensors."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._calls: dict[int, PlannedCall] = {}
        self._batch: Call | None = None
        self._pads: list[Padded] = []

    def on(self, event: Event, sum_number: int = 0) -> None:
        """Note an event; `sum_number` counts the sums that were reported before it."""
        match event:
            case CallEnded():
                self._call_ended(event)
            case ActivationCalled():
                make = partial(PlannedActivation, event.parent.index, event.name, event.number, event.path)
                self._drafts.append(_Draft(make, (event.formula,), (True,), where=event.path))
            case BranchesAdded():
                indices = _indices(event.spectral), _indices(event.local)
                made = partial(PlannedBranches, event.parent.index, *indices, event.order, event.spans_blocks)
                needed = True, True, False, True
                where = event.parent.path
                self._drafts.append(_Draft(made, event.formulas, needed, number=sum_number, where=where))
            case ResidualAdded():
                update = partial(PlannedResidual, event.parent.index, _indices(event.spectral), event.order)
                self._drafts.append(_Draft(update, event.formulas, (True, True), where=event.parent.path))
            case Padded():
                self._pads.append(event)

    def build(self, model_map: ModelMap, has_sides: Sequence[bool], hidden_writes: bool) -> MeasurementPlan:
        """Return the plan; `has_sides` says by sum whether its block is measured there, not as a module."""
        deadlines = _find_deadlines([draft.ended for draft in self._drafts])
        wanted: dict[Appearance, bool] = {}
        chosen: list[list[list[tuple[tuple[Appearance, ...], tuple[float, ...]]]]] = []
        why = "it writes into tensors in a way that torch does not count" if hidden_writes else None
        emitted = 0
        for draft, deadline in zip(self._drafts, deadlines, strict=True):
            if draft.number is not None and not has_sides[draft.number]:
                draft.formulas = (*draft.formulas[:2], (), ())
                draft.needed = (True, True, False, False)
            for formula, needed in zip(draft.formulas, draft.needed, strict=True):
                if needed and not formula:
                    why = why or f"a sum in {draft.where or 'the model'} has factors that are tensors"
            tensors = [t for formula in draft.formulas for product in formula for t in product.tensors]
            places = {tensor: _choose(tensor, deadline) for tensor in tensors}
            emitted = max([emitted, draft.ended or 0, *(moment for moment, _ in places.values())])
            for tensor, (_, appearance) in places.items():
                copied = tensor.overwritten is not None and tensor.overwritten <= emitted
                wanted[appearance] = wanted.get(appearance, False) or copied
            chosen.append(
                [
                    [(tuple(places[t][1] for t in p.tensors), p.numbers) for p in formula]
                    for formula in draft.formulas
                ]
            )
        functions = () if self._batch is None else tuple(self._batch.functions)
        position = {appearance: index for index, appearance in enumerate(wanted)}
        events = [
            draft.make(
                formulas=tuple(
                    tuple(
                        PlannedProduct(tuple(position[place] for place in places), numbers)
                        for places, numbers in formula
                    )
                    for formula in formulas
                )
            )
            for draft, formulas in zip(self._drafts, chosen, strict=True)
        ]
        return MeasurementPlan(
            model_map=model_map,
            calls=(
                PlannedCall("", 0, functions=functions),
                *(self._calls[index] for index in sorted(self._calls)),
            ),
            events=tuple(events),
            wanted=tuple(Wanted(appearance, copied) for appearance, copied in wanted.items()),
            pads=tuple(self._pads),
            why_traced=why,
        )

    def _call_ended(self, event: CallEnded) -> None:
        call = event.call
        self._batch = call.outermost.parent
        self._drafts.append(_Draft(partial(PlannedEnd, call.index), ended=call.ended))
        self._calls[call.index] = PlannedCall(
            path=call.path,
            parent=call.parent.index if call.parent is not None else 0,
            ranks=read_ranks(tensors_in(event.output)),
            overwrites=call.input_overwritten,
            own_transforms=call.own_transforms,
            spectral=_plan_spectral(call, event.inputs) if call.spectral else None,
            functions=tuple(call.functions),
            counts_other_writes=call.writes_of_input != count_first_writes(event.inputs),
            class_name=written_class(call.module).__name__ if call.module is not None else "",
        )


def _plan_spectral(call: Call, inputs: object) -> SpectralCall:
    """Return what a spectral call keeps; not decided where zero weights may pass for cut modes."""
    found = describe_spectral(call, inputs)
    return replace(found, decided=found.decided and not _has_zero_weights(call.module))


def _has_zero_weights(module: nn.Module | None) -> bool:
    """Whether weights of a module are zero; a bias, with one axis longer than 1, is no weight.

    The weights of a mode that is zero are zero in every channel, and channels are the first or the last axis.
    """
    for parameter in module.parameters() if module is not None else ():
        if sum(size > 1 for size in parameter.shape) > 1:
            of_one_channel = parameter.detach()[0], parameter.detach()[..., 0]
            if any(bool((values == 0).any()) for values in of_one_channel):
                return True
    return False


def describe_spectral(call: Call, inputs: object) -> SpectralCall:
    """Return what a spectral call that has just ended keeps of its input."""
    modes = call.modes
    decided = modes is None or bool((modes.mask | modes.removed).all())
    shape, settings = read_field_shape(inputs), read_settings(call.module)
    return SpectralCall(shape, settings, modes, call.available, call.selects, decided)


def read_settings(module: nn.Module | None) -> Settings:
    """Return what may decide which modes a module keeps: its plain attributes and its sizes of weights."""
    if module is None:
        return ()
    own = vars(module)
    plain = [(name, _read_plain(value)) for name, value in own.items() if name not in _OF_TORCH]
    sizes = [(name, tuple(parameter.shape)) for name, parameter in module.named_parameters()]
    # A mask of modes may be a buffer.
    buffers = [(name, id(buffer), count_writes(buffer)) for name, buffer in module.named_buffers()]
    return (*((name, value) for name, value in plain if value is not _NOT_PLAIN), *sizes, *buffers)


_OF_TORCH = frozenset(vars(nn.Module()))
_NOT_PLAIN = object()


def _read_plain(value: object) -> object:
    """Return a number, text or tuple for a plain value or a list or dict of such; else `_NOT_PLAIN`."""
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, tuple | list):
        parts = tuple(map(_read_plain, value))
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else parts
    return value if isinstance(value, int | float | str | NoneType) else _NOT_PLAIN


def list_field_shapes(value: object) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the tensors in a batch without their first axes, which is that of the samples."""
    return tuple((read_shape(tensor) or ())[1:] for tensor in tensors_in(value))


def count_first_writes(inputs: object) -> int | None:
    """Return torch's count of writes to the first tensor of the inputs; None without one."""
    first = next(tensors_in(inputs), None)
    return None if first is None else count_writes(first)


def read_field_shape(inputs: object) -> tuple[int, ...]:
    """Return the shape of the first tensor of the inputs, without its first axis; () without a tensor."""
    first = next(tensors_in(inputs), None)
    return () if first is None else (read_shape(first) or ())[1:]


def read_ranks(tensors: Iterable[object]) -> tuple[int, ...]:
    """Return the number of axes of each tensor; -1 for one without a shape in numbers."""
    shapes = [read_shape(tensor) for tensor in tensors]  # type: ignore[arg-type]
    return tuple(-1 if shape is None else len(shape) for shape in shapes)


def _find_deadlines(ends: Sequence[int | None]) -> list[int | None]:
    """Return for each event the moment of the next end of a call, which is sent after it; None at the end."""
    deadlines: list[int | None] = []
    deadline = None
    for ended in reversed(ends):
        deadline = deadline if ended is None else ended
        deadlines.append(deadline)
    return deadlines[::-1]


def _choose(tensor: Seen, deadline: int | None) -> tuple[int, Appearance]:
    """Return moment and place of a tensor: at a module if it is there before the deadline, else earliest."""
    in_time = [place for place in tensor.appearances if deadline is None or place[0] <= deadline]
    at_module = [place for place in in_time if place[1].function < 0]
    return (at_module or in_time)[0]


def _indices(calls: Iterable[Call]) -> tuple[int, ...]:
    return tuple(call.index for call in calls)
