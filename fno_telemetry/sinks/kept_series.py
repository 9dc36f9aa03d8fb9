"""The records of a run that its pictures are made of at its end: so few that a long training keeps no more.

Of each record the numbers that have a picture are kept, for the layers of the overview; of the last record
everything. Where there are too many, every second one is forgotten, but hardly one at which something broke.
"""

from dataclasses import replace
from typing import TypeVar

from fno_telemetry.findings import select_new
from fno_telemetry.keys import VALIDATION
from fno_telemetry.records import BlockRecord, CaptureRecord, FrozenMapping, ModuleRecord, TensorRecord, Value
from fno_telemetry.sinks.overview import select_overview

NUMBERS = (
    "low_frequency_fraction",
    "spectral_share",
    "update_ratio",
    "rms",
    "gain",
    "sample_variation",
    "dead_channel_fraction",
    "grad_norm",
    "update_to_weight",
)
"""The numbers that are kept of each layer: those that pictures and pages show over the steps."""

MOST_ENTRIES = 20_000
"""Layers times records, of about 1 kB each."""

MOST_RECORDS = 500
FEWEST_RECORDS = 50

Measured = TypeVar("Measured", TensorRecord, ModuleRecord)


class KeptSeries:
    """What is kept of the records so far; validations, whose curves are others, are left out."""

    def __init__(self) -> None:
        self._kept: dict[int, CaptureRecord] = {}  # by their number among all
        self._stride = 1
        self._count = 0
        self.last: CaptureRecord | None = None

    def add(self, record: CaptureRecord) -> None:
        """Keep a record; records come in the order of their steps."""
        if record.stage == VALIDATION:
            return
        number, self._count, self.last = self._count, self._count + 1, record
        room = _find_room(record)
        others = [each for each in self._kept if each % self._stride]
        if number % self._stride == 0 or (_breaks(record) and len(others) < room // 4):
            self._kept[number] = reduce_record(record)
        if len(self._kept) > room:
            self._stride *= 2
            regular = [each for each in self._kept if each % self._stride == 0]
            broken = [n for n, each in self._kept.items() if n % self._stride and _breaks(each)]
            # Where much breaks, the first ones tell most.
            self._kept = {n: self._kept[n] for n in sorted([*regular, *broken[: room // 4]])}

    @property
    def records(self) -> list[CaptureRecord]:
        """The records kept, the last one among them, all with the same numbers."""
        found = [*self._kept.values()]
        if self.last is not None and self._count - 1 not in self._kept:
            found.append(reduce_record(self.last))
        return found


def reduce_record(record: CaptureRecord) -> CaptureRecord:
    """Return a record with the numbers in NUMBERS of the layers of its overview; spectra of both ends."""
    shown = select_overview(record)
    return replace(
        shown,
        modules=tuple(
            replace(_reduce(each), log_histogram=None, spectrum=None, mode_energy=None)
            for each in shown.modules
        ),
        blocks=tuple(replace(each, stats=_select(each), reasons=FrozenMapping()) for each in shown.blocks),
        input=None if shown.input is None else _reduce(shown.input),
        output=None if shown.output is None else _reduce(shown.output),
        layers=FrozenMapping(),
        parameters=(),
        target=None,
        not_fired=(),
        skipped=(),
        errors=(),
        warnings=(),
        findings=None if record.findings is None else tuple(select_new(record)),
    )


def _reduce(entry: Measured) -> Measured:
    return replace(
        entry, stats=_select(entry), reasons=FrozenMapping(), histogram=None, sketch=None, channel_rms=None
    )


def _select(entry: TensorRecord | BlockRecord) -> FrozenMapping[Value]:
    return FrozenMapping({name: entry.stats[name] for name in NUMBERS if name in entry.stats})


def _breaks(record: CaptureRecord) -> bool:
    """Whether an error or a warning is new in a record."""
    return any(finding.severity != "note" for finding in select_new(record))


def _find_room(record: CaptureRecord) -> int:
    layers = len(record.modules) + len(record.blocks) + 2
    return min(MOST_RECORDS, max(FEWEST_RECORDS, MOST_ENTRIES // layers))
