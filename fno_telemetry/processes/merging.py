"""Combines what several processes have measured: a maximum over all of them, then a sum, once per record."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fno_telemetry.measuring.accumulators import BlockAccumulator, ModuleAccumulator, TensorAccumulator
from fno_telemetry.measuring.awaited_gradients import Gradients
from fno_telemetry.measuring.record_builder import Run
from fno_telemetry.processes.group import ProcessGroup
from fno_telemetry.processes.notes import list_notes, take_notes
from fno_telemetry.processes.rows import (
    AgreedRow,
    Agreement,
    Measured,
    Row,
    agree_alone,
    list_rows,
    make_holder,
    read_identity,
)
from fno_telemetry.records import Value
from fno_telemetry.statistics import legacy
from fno_telemetry.statistics.activation import Layout
from fno_telemetry.statistics.moments_over_processes import Numbers
from fno_telemetry.statistics.over_processes import Codes, Numbered, add_largest, add_sums, combine
from fno_telemetry.statistics.values import ValueState

_OF_A_PROCESS = 4  # numbers: whether it has the row, of how many batches, its smallest and largest element


class NotTogether(Exception):
    """The processes cannot combine what they have; all of them raise it, with the same text."""


@dataclass(frozen=True)
class Merged:
    """What all processes have measured, in the first one: the collector has it all, as has this."""

    gradients: Gradients | None
    samples: tuple[int, ...]  # of each process
    batch_size: int
    forwards: int
    called_outside: frozenset[str]
    deviations: tuple[str, ...]
    extras: Mapping[str, Any]

    def describe(self, run: Run) -> Run:
        """Return what is known of the run of all processes, given that of this one."""
        return replace(
            run,
            samples=sum(self.samples),
            batch_size=self.batch_size,
            called_outside=self.called_outside,
            deviations=self.deviations,
            processes=self.samples,
        )


class Merging:
    """Combines records of one stage, which mostly have the same rows; what they are is agreed on once."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._agreed = Agreement({}, (), (), {})

    def merge(self, step: int | None, measured: Measured | None) -> Merged | None:
        """Combine what the processes have measured in this step; None in all processes but the first.

        `measured` has its numbers in host memory; it is None in a process that could not measure the step.
        NotTogether where one of them could not, or where the processes are not at the same step.
        """
        notes = [] if measured is None else list_notes(measured)
        rows = {} if measured is None else list_rows(measured)
        own = Agreement({}, (), (), {}) if measured is None else agree_alone(rows, measured, notes)
        forwards, lost = self._compare(step, own, measured)
        if lost or measured is None:
            raise NotTogether(lost or "")
        packing = _Packing(self._agreed, rows, measured, notes, self._group, forwards)
        largest = self._group.largest(packing.pack_largest())
        sums = self._group.add_up_in_first(packing.pack_sums(largest))
        return None if sums is None else packing.unpack(largest, sums)

    def _compare(self, step: int | None, own: Agreement, measured: Measured | None) -> tuple[int, str | None]:
        """Agree on the rows where one process has others than before.

        Return the most forwards of any process, and why there is no record, None if there is one.
        """
        at = -1 if step is None else step
        differs, forwards = not self._agreed.covers(own), 0 if measured is None else measured.forwards
        asked = np.array((differs, measured is None, measured is not None, at, -at, forwards), np.float64)
        differs, is_lost, is_there, last, first, most = self._group.largest(asked).tolist()
        if last != -first:
            raise NotTogether(
                f"the processes are at different steps, {int(-first)} and {int(last)}: give all of them the "
                "same schedule"
            )
        if is_lost:
            return 0, "one of the processes could not measure it" if is_there else "none could measure it"
        if differs:
            self._agreed = Agreement.of_texts(self._group.gather_texts(own.as_text()))
        return int(most), None


class _Packing:
    """The numbers of one process in the order that all of them agreed on, and what becomes of their sums."""

    def __init__(
        self,
        agreed: Agreement,
        rows: Mapping[str, Row],
        measured: Measured,
        notes: Sequence[str],
        group: ProcessGroup,
        forwards: int,
    ) -> None:
        self._agreed = agreed
        self._rows = rows
        self._measured = measured
        self._notes = frozenset(notes)
        self._rank, self._count = group.rank, group.count
        self._forwards = forwards  # the most of any process
        self._codes = Codes(agreed.reasons)

    def pack_largest(self) -> Numbers:
        """Return the numbers of which the largest of all processes counts."""
        out: list[Numbers] = [np.array([note in self._notes for note in self._agreed.notes], np.float64)]
        collector = self._measured.collector
        facts = (
            self._measured.batch_size,
            collector.own_transforms,
            collector.transforms_apart,
            collector.target.is_known,
        )
        out.append(np.array(facts, np.float64))
        for identity, agreed in self._agreed.rows.items():
            row = self._rows.get(identity)
            out.append(_flags(row))
            for name, about in agreed.states.items():
                add_largest(about, self._state(row, name), self._codes, out, self._rank)
        for name, about in self._agreed.extras.items():
            add_largest(about, self._measured.extras.get(name), self._codes, out)
        return np.concatenate(out)

    def pack_sums(self, largest: Numbers) -> Numbers:
        """Return the numbers that add up, given the largest ones of all processes."""
        known = Numbered(largest)
        known.take(len(self._agreed.notes) + 4)
        samples = np.zeros(self._count)
        samples[self._rank] = self._measured.samples
        out: list[Numbers] = [samples, np.array((self._measured.forwards,), np.float64)]
        for identity, agreed in self._agreed.rows.items():
            row = self._rows.get(identity)
            known.take(3)
            out.extend(self._numbers_by_process(row, agreed))
            for name, about in agreed.states.items():
                add_sums(about, self._state(row, name), known, out, self._rank)
        for name, about in self._agreed.extras.items():
            add_sums(about, self._measured.extras.get(name), known, out)
        return np.concatenate(out)

    def unpack(self, largest: Numbers, sums: Numbers) -> Merged:
        """Give the states of all processes to the collector, and return what it does not hold."""
        known, added = Numbered(largest), Numbered(sums)
        collector = self._measured.collector
        said = known.take(len(self._agreed.notes)) > 0
        batch_size, own_transforms, apart, has_target = known.take(4).tolist()
        samples, forwards = added.take(self._count), int(added.take(1)[0])
        found = {
            identity: self._read_row(agreed, known, added) for identity, agreed in self._agreed.rows.items()
        }
        extras = {
            name: combine(about, known, added, self._codes) for name, about in self._agreed.extras.items()
        }
        gradients = self._give_rows(found)
        collector.own_transforms, collector.transforms_apart = int(own_transforms), apart > 0
        collector.target.is_known = has_target > 0
        notes = [note for note, is_said in zip(self._agreed.notes, said, strict=True) if is_said]
        taken = take_notes(notes, self._measured, gradients)
        return Merged(
            gradients=taken.gradients,
            samples=tuple(samples.astype(int).tolist()),
            batch_size=int(batch_size),
            forwards=forwards,
            called_outside=taken.called_outside,
            deviations=taken.deviations,
            extras=extras,
        )

    def _state(self, row: Row | None, name: str) -> Any:
        return None if row is None else row.states.find(name)

    def _numbers_by_process(self, row: Row | None, agreed: AgreedRow) -> Iterator[Numbers]:
        """Yield what is added without being mixed: each process has a place of its own."""
        own = np.zeros((self._count, _OF_A_PROCESS))
        batches = np.zeros((self._count, self._forwards, len(legacy.KEYS) if agreed.has_batches else 0))
        samples = 0
        if row is not None:
            low, high, number = math.nan, math.nan, 0
            values = row.states.find("values")
            if isinstance(values, ValueState) and int(values.finite):
                low, high = values.extremes.tolist()
            of_batches = _list_batches(row)
            if of_batches is not None:
                number = len(of_batches)
                batches[self._rank, :number, : of_batches.shape[1]] = of_batches
            own[self._rank] = 1, number, low, high
            samples = _count_samples(row)
        yield own.reshape(-1)
        yield batches.reshape(-1)
        yield np.array((samples,), np.float64)

    def _read_row(self, agreed: AgreedRow, known: Numbered, added: Numbered) -> "_FoundRow":
        flags = known.take(3) > 0
        by_process = added.take(self._count * _OF_A_PROCESS).reshape(self._count, _OF_A_PROCESS)
        width = len(legacy.KEYS) if agreed.has_batches else 0
        batches = added.take(self._count * self._forwards * width)
        samples = int(added.take(1)[0])
        states = {name: combine(about, known, added, self._codes) for name, about in agreed.states.items()}
        return _FoundRow(
            {name: state for name, state in states.items() if state is not None},
            flags,
            by_process,
            batches.reshape(self._count, self._forwards, width),
            samples,
        )

    def _give_rows(self, found: Mapping[str, "_FoundRow"]) -> Gradients | None:
        """Give each row its states, those of other processes too, and return the gradients."""
        collector = self._measured.collector
        modules: dict[Any, Any] = {}
        gradients: dict[str, dict[Any, Any]] = {"gradients": {}, "block gradients": {}}
        for identity, new in found.items():
            if not new.by_process[:, 0].any():
                continue  # of an earlier step alone
            kind, key = read_identity(identity)
            row = self._rows.get(identity)
            if row is None:
                about = self._agreed.rows[identity].about
                holder = make_holder(kind, key, about, collector)
                row = Row(collector.make_states() if holder is None else holder.states, holder, about)
            row.states.replace(new.states)
            if isinstance(row.holder, TensorAccumulator):
                _give_tensor(row.holder, row.about, new)
            elif isinstance(row.holder, BlockAccumulator):
                row.holder.legacy_ratios = [
                    None if math.isnan(ratio) else torch.tensor(ratio, dtype=torch.float64)
                    for ratio in new.list_batches()[:, 0].tolist()
                ]
            match kind:
                case "input":
                    collector.inputs[key[0]] = row.holder  # type: ignore[assignment]
                case "output":
                    collector.outputs[key] = row.holder  # type: ignore[assignment]
                case "target":
                    collector.target.take(row.holder)  # type: ignore[arg-type]
                case "module":
                    modules[key] = row.holder
                case "block":
                    collector.blocks[key] = row.holder  # type: ignore[assignment]
                case "gradients" | "block gradients":
                    gradients[kind][key] = row.states
        # In the order of all processes.
        collector.modules.clear()
        collector.modules.update(modules)
        for order, module in enumerate(collector.modules.values()):
            module.order = order
        own = self._measured.gradients
        if own is None:
            return None
        return replace(own, modules=gradients["gradients"], blocks=gradients["block gradients"])


@dataclass(frozen=True)
class _FoundRow:
    """A row over all processes."""

    states: Mapping[str, Any]
    flags: Any  # complex, rectifying, images
    by_process: Numbers  # (processes, 4)
    batches: Numbers  # (processes, most batches, numbers of a batch)
    samples: int

    def list_batches(self) -> Numbers:
        """Return the numbers of each batch, process after process."""
        numbers = self.by_process[:, 1].astype(int).tolist()
        return np.concatenate([own[:number] for own, number in zip(self.batches, numbers, strict=True)])


def _give_tensor(tensor: TensorAccumulator, about: Mapping[str, Any], new: _FoundRow) -> None:
    if not tensor.dtype:
        layout = about["layout"]
        axes = (_as_tuples(layout[name]) for name in ("space", "unflattened", "padding"))
        tensor.layout = Layout(layout["sample"], layout["channel"], *axes)
        tensor.shape, tensor.dtype = tuple(about["shape"]), about["dtype"]
        tensor.kinds = tuple(about["kinds"])
    if tensor.layout.sample == 0:
        tensor.shape = (new.samples, *tensor.shape[1:])
    is_complex, rectifying, images = new.flags.tolist()
    tensor.is_complex = is_complex
    if new.batches.shape[2]:
        rows = torch.from_numpy(new.list_batches().copy())
        tensor.rows = legacy.LegacyState(rows, rectifying, images)
    tensor.process_extremes = tuple(
        (_known(low), _known(high)) if is_there else (None, None)
        for is_there, _, low, high in new.by_process.tolist()
    )


def _known(number: float) -> Value:
    return number if math.isfinite(number) else None


def _as_tuples(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_as_tuples(value) if isinstance(value, list) else value for value in values)


def _flags(row: Row | None) -> Numbers:
    if row is None or not isinstance(row.holder, TensorAccumulator):
        return np.zeros(3)
    rows = row.holder.rows
    flags = row.holder.is_complex, bool(rows and rows.rectifying), bool(rows and rows.images)
    return np.array(flags, np.float64)


def _count_samples(row: Row) -> int:
    has_samples = isinstance(row.holder, TensorAccumulator) and row.holder.layout.sample == 0
    return row.holder.shape[0] if has_samples else 0  # type: ignore[union-attr]


def _list_batches(row: Row) -> Numbers | None:
    """Return the numbers of each batch, one row for each; of a block the ratio of its branches."""
    if isinstance(row.holder, BlockAccumulator):
        ratios = [math.nan if ratio is None else float(ratio) for ratio in row.holder.legacy_ratios]
        return np.array(ratios).reshape(-1, 1)
    if isinstance(row.holder, ModuleAccumulator) and row.holder.rows is not None:
        rows: Numbers = row.holder.rows.rows.numpy()
        return rows
    return None
