import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fno_telemetry.records import CaptureRecord

Events = dict[str, list[tuple[int, object]]]


@pytest.fixture(scope="session")
def examples() -> SimpleNamespace:
    """What example_record.py defines; the tests are no package that it could be imported from."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_record.py"))))


@pytest.fixture(scope="session")
def record(examples: SimpleNamespace) -> CaptureRecord:
    return examples.example()


@pytest.fixture(scope="session")
def read_events() -> Callable[[Path], Events]:
    """Read every event file in a folder: tag -> [(step, value)], in the order written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    def read(folder: Path) -> Events:
        found: Events = {}
        for file in sorted(folder.glob("events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    kind = value.WhichOneof("value")
                    found.setdefault(value.tag, []).append((event.step, getattr(value, kind)))
        return found

    return read
