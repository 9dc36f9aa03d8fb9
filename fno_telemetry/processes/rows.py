"""The rows of a record: what one process has measured, and what all of them agree on to combine it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fno_telemetry.measuring.accumulators import (
    BlockAccumulator,
    ModuleAccumulator,
    States,
    TensorAccumulator,
)
from fno_telemetry.measuring.awaited_gradients import Gradients
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.statistics.contract import OF_GRADIENTS, OF_WEIGHTS, Of, SummedState
from fno_telemetry.statistics.moments_over_processes import About
from fno_telemetry.statistics.over_processes import NOTHING, describe, join, list_reasons

Holder = TensorAccumulator | BlockAccumulator | None


@dataclass(frozen=True)
class Measured:
    """What one process has measured for a record.

    The gradients of parameters are the same in all, so the first process counts that has them; with
    `is_spread`, each process has those of its share. `extras` are further numbers, by name.
    """

    collector: Collector
    gradients: Gradients | None = None
    samples: int = 0
    batch_size: int = 0
    forwards: int = 0
    called_outside: frozenset[str] = frozenset()
    deviations: tuple[str, ...] = ()
    extras: Mapping[str, SummedState] = field(default_factory=dict)
    is_spread: bool = False

    def is_first(self, of: Of, state: Any) -> bool:
        """Return whether of such states that of the first process counts that has one."""
        if of in OF_WEIGHTS:
            return not isinstance(state, SummedState)
        return of in OF_GRADIENTS and not self.is_spread


@dataclass(frozen=True)
class Row:
    """The states of one subject, what holds them, and what is known of it besides."""

    states: States
    holder: Holder = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgreedRow:
    """What all processes know of a row: `states` describes those of each statistic."""

    about: Mapping[str, Any]
    states: Mapping[str, About]
    has_batches: bool  # whether it has numbers of each batch


@dataclass(frozen=True)
class Agreement:
    """The rows of all processes in order, by identity; reasons, notes and extras that any of them has."""

    rows: Mapping[str, AgreedRow]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    extras: Mapping[str, About]

    def as_text(self) -> str:
        """Return it as JSON."""
        rows = [[identity, dataclasses.asdict(row)] for identity, row in self.rows.items()]
        return json.dumps([rows, self.reasons, self.notes, dict(self.extras)])

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> "Agreement":
        """Return what holds for all processes, given the text of each."""
        rows: dict[str, AgreedRow] = {}
        order: list[str] = []
        reasons: set[str] = set()
        notes: set[str] = set()
        extras: dict[str, About] = {}
        for text in texts:
            own_rows, own_reasons, own_notes, own_extras = json.loads(text)
            reasons.update(own_reasons)
            notes.update(own_notes)
            extras = _join_all(extras, own_extras)
            at = 0
            for identity, fields in own_rows:
                row = AgreedRow(**fields)
                if identity in rows:
                    known = rows[identity]
                    has_batches = known.has_batches or row.has_batches
                    rows[identity] = AgreedRow(known.about, _join_all(known.states, row.states), has_batches)
                    at = order.index(identity) + 1
                else:
                    # After the row that it follows in its own process.
                    rows[identity] = row
                    order.insert(at, identity)
                    at += 1
        return cls(
            {identity: rows[identity] for identity in order},
            tuple(sorted(reasons)),
            tuple(sorted(notes)),
            dict(sorted(extras.items())),
        )

    def covers(self, own: "Agreement") -> bool:
        """Return whether the states of a process can be combined as agreed."""
        if not set(own.reasons) <= set(self.reasons) or not set(own.notes) <= set(self.notes):
            return False
        if not _covers(self.extras, own.extras):
            return False
        return all(
            (agreed := self.rows.get(identity)) is not None
            and agreed.has_batches >= row.has_batches
            and _covers(agreed.states, row.states)
            for identity, row in own.rows.items()
        )


def list_rows(measured: Measured) -> dict[str, Row]:
    """Return what a process has measured by identity, in the order of the record."""
    return dict(_list_rows(measured))


def identify(kind: str, *key: object) -> str:
    """Return the identity of a row."""
    return json.dumps([kind, *key])


def read_identity(identity: str) -> tuple[str, tuple[Any, ...]]:
    """Return the kind and the key of a row."""
    kind, *key = json.loads(identity)
    return kind, tuple(key)


def agree_alone(rows: Mapping[str, Row], measured: Measured, notes: Sequence[str]) -> Agreement:
    """Return what one process brings to an agreement."""
    described: dict[str, AgreedRow] = {}
    reasons: set[str] = set()
    for identity, row in rows.items():
        states = {}
        for statistic, state in row.states.by_statistic():
            states[statistic.name] = describe(state, measured.is_first(statistic.of, state))
            reasons |= list_reasons(state)
        described[identity] = AgreedRow(row.about, states, _has_batches(row.holder))
    extras = {name: describe(state) for name, state in measured.extras.items()}
    return Agreement(described, tuple(sorted(reasons)), tuple(sorted(notes)), extras)


def make_holder(kind: str, key: tuple[Any, ...], about: Mapping[str, Any], like: Collector) -> Holder:
    """Return what holds the states of a row that only other processes have."""
    if kind == "block":
        spectral, local = (tuple(about[side]) for side in ("spectral", "local"))
        name, call = key
        return BlockAccumulator(name, call, spectral, local, about["order"], like.make_states())
    if kind == "module":
        own = {name: about[name] for name in ("order", "parent", "class_name", "role")}
        return ModuleAccumulator(like.make_states(), name=key[0], call=key[1], **own)
    return TensorAccumulator(like.make_states()) if kind in ("input", "output", "target") else None


def _list_rows(measured: Measured) -> Iterator[tuple[str, Row]]:
    collector = measured.collector
    for item, entered in collector.inputs.items():
        yield identify("input", item), Row(entered.states, entered, _describe_tensor(entered))
    for key, output in collector.outputs.items():
        yield identify("output", *key), Row(output.states, output, _describe_tensor(output))
    for target in collector.target.accumulators:
        yield identify("target"), Row(target.states, target, _describe_tensor(target))
    yield identify("comparison"), Row(collector.target.compared)
    for key, module in collector.modules.items():
        yield identify("module", *key), Row(module.states, module, _describe_tensor(module))
    for block_key, block in collector.blocks.items():
        about = {"spectral": block.spectral, "local": block.local, "order": block.order}
        yield identify("block", *block_key), Row(block.states, block, about)
    if measured.gradients is not None:
        for key, states in measured.gradients.modules.items():
            yield identify("gradients", *key), Row(states)
        for block_key, states in measured.gradients.blocks.items():
            yield identify("block gradients", *block_key), Row(states)


def _describe_tensor(tensor: TensorAccumulator) -> dict[str, Any]:
    about: dict[str, Any] = {
        "shape": tensor.shape,
        "dtype": tensor.dtype,
        "layout": dataclasses.asdict(tensor.layout),
        "kinds": tensor.kinds,
    }
    if isinstance(tensor, ModuleAccumulator):
        about |= {name: getattr(tensor, name) for name in ("order", "parent", "class_name", "role")}
    return about


def _has_batches(holder: Holder) -> bool:
    if isinstance(holder, BlockAccumulator):
        return bool(holder.legacy_ratios)
    return holder is not None and holder.rows is not None


def _join_all(one: Mapping[str, About], other: Mapping[str, About]) -> dict[str, About]:
    names = dict.fromkeys((*one, *other))
    return {name: join(one.get(name, NOTHING), other.get(name, NOTHING)) for name in names}


def _covers(agreed: Mapping[str, About], own: Mapping[str, About]) -> bool:
    """Return whether states are described as agreed.

    What was unknown because it differed between processes may be known again.
    """
    for name, about in own.items():
        known = agreed.get(name)
        if known is None or join(known, about) != known:
            return False
        if known["is"] == "unknown" and about not in (known, NOTHING):
            return False
    return True
