"""Sinks that each break one promise, for the tester; another process can import them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fno_telemetry import keys
from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.overview import select_overview
from fno_telemetry.testing import example_record

Numbers = dict[Any, dict[str, Any]]


class Unnamed(JsonFile):
    name = None


class WithoutReadBack:
    name = "blind"

    def open(self, run: RunContext) -> None: ...

    def write(self, record: CaptureRecord) -> None: ...

    def flush(self) -> None: ...

    def close(self, ok: bool) -> list[str]:
        return []


class NeedsOpening(JsonFile):
    def __init__(self) -> None:
        super().__init__()
        self._run: RunContext | None = None

    def open(self, run: RunContext) -> None:
        self._run = run
        super().open(run)

    def close(self, ok: bool) -> list[str]:
        if self._run is None:
            raise SinkUnavailable("open it\nfirst")
        return super().close(ok)


class LeavesAFile(JsonFile):
    def open(self, run: RunContext) -> None:
        super().open(run)
        (run.folder / "lock").touch()


class ShowsNothingToSee(JsonFile):
    def close(self, ok: bool) -> list[str]:
        return super().close(ok) or ["fno-telemetry view nothing"]


class WritesAtTheEnd(JsonFile):
    """Loses what was flushed when it is killed."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[CaptureRecord] = []

    def write(self, record: CaptureRecord) -> None:
        self._kept.append(record)

    def close(self, ok: bool) -> list[str]:
        for record in self._kept:
            super().write(record)
        self._kept = []
        return super().close(ok)


class DropsARecord(JsonFile):
    """Drops every second record."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def write(self, record: CaptureRecord) -> None:
        self._count += 1
        if self._count % 2:
            super().write(record)


class DropsBlocks(JsonFile):
    def read_back(self, folder: Path) -> Numbers:
        blocks = {keys.record_key(name, b) for b in example_record.example().blocks for name in b.stats}
        found = super().read_back(folder)
        return {s: {k: v for k, v in numbers.items() if k not in blocks} for s, numbers in found.items()}


class Rounds(JsonFile):
    def read_back(self, folder: Path) -> Numbers:
        found = super().read_back(folder)
        return {step: {k: float(f"{v:.3g}") for k, v in numbers.items()} for step, numbers in found.items()}


class CallsNoStepZero(JsonFile):
    def read_back(self, folder: Path) -> Numbers:
        return {step or 0: numbers for step, numbers in super().read_back(folder).items()}


class ReadsAList(JsonFile):
    def read_back(self, folder: Path) -> list[object]:
        return list(super().read_back(folder).items())


class ChangesTheRecord(JsonFile):
    def write(self, record: CaptureRecord) -> None:
        super().write(record)
        summary: Any = record.summary
        summary._items["n_samples"] = 0


class AsksForATensor(JsonFile):
    def write(self, record: Any) -> None:
        record.modules[0].tensor.numpy()


class TwoLines(JsonFile):
    def close(self, ok: bool) -> list[str]:
        return [f"look:\n{line}" for line in super().close(ok)]


class SaysNothing(JsonFile):
    def close(self, ok: bool) -> list[str]:
        super().close(ok)
        return []


class ForgetsAFailedRun(JsonFile):
    def open(self, run: RunContext) -> None:
        self._report = run.folder / run.report_name
        super().open(run)

    def close(self, ok: bool) -> list[str]:
        lines = super().close(ok)
        if lines and not ok:
            self._report.unlink()
        return lines


class OpensOnce(JsonFile):
    def __init__(self) -> None:
        super().__init__()
        self._is_used = False

    def open(self, run: RunContext) -> None:
        if self._is_used:
            raise SinkUnavailable("used up")
        self._is_used = True
        super().open(run)


class InventsAStep(JsonFile):
    def read_back(self, folder: Path) -> Mapping[Any, Any]:
        found = super().read_back(folder)
        return {**found, 7: {}} if found else {}


class HoldsOnlyOverviews(JsonFile):
    """Has no option to hold everything."""

    detail = "overview"


class LosesWithFullDetail(JsonFile):
    def __init__(self, detail: str = "overview") -> None:
        super().__init__()
        self.detail = detail

    def write(self, record: CaptureRecord) -> None:
        super().write(select_overview(record))


class HoldsTheHalf(JsonFile):
    detail = "half"


class IgnoresTheDetail(JsonFile):
    detail = "overview"

    def __init__(self, detail: str = "overview") -> None:
        super().__init__()


class LosesTheOverview(JsonFile):
    def __init__(self, detail: str = "overview") -> None:
        super().__init__()
        self.detail = detail

    def read_back(self, folder: Path) -> Numbers:
        lost = () if self.detail == "full" else ("low_frequency_fraction/input",)
        found = super().read_back(folder)
        return {step: {k: v for k, v in numbers.items() if k not in lost} for step, numbers in found.items()}
