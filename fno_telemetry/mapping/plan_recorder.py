"""Makes a measurement plan from the events of one followed forward."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from fno_telemetry.mapping.call_inputs import count_first_writes, read_ranks
from fno_telemetry.mapping.measurement_plan import (
    MeasurementPlan,
    PlannedActivation,
    PlannedBranches,
    PlannedCall,
    PlannedEnd,
    PlannedEvent,
    PlannedFormula,
    PlannedProduct,
    PlannedResidual,
    Wanted,
)
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.mapping.spectral_calls import plan_spectral
from fno_telemetry.tracing.appearances import Appearance, Formula, Seen
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Event,
    Padded,
    ResidualAdded,
)
from fno_telemetry.tracing.module_calls import Call, written_class
from fno_telemetry.tracing.nested_tensors import tensors_in


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
            spectral=plan_spectral(call, event.inputs) if call.spectral else None,
            functions=tuple(call.functions),
            counts_other_writes=call.writes_of_input != count_first_writes(event.inputs),
            class_name=written_class(call.module).__name__ if call.module is not None else "",
        )


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
