import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from fno_telemetry.records import CaptureRecord


@pytest.fixture(scope="session")
def examples() -> SimpleNamespace:
    """What example_record.py defines; the tests are no package that it could be imported from."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("example_record.py"))))


@pytest.fixture(scope="session")
def record(examples: SimpleNamespace) -> CaptureRecord:
    return examples.example()
