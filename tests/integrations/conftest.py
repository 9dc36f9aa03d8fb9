"""Fixtures of the tests of other packages' trainings."""

import pytest

from fno_telemetry.testing.in_memory_sink import InMemorySink
from support import wandb_surroundings

alone = wandb_surroundings.alone


@pytest.fixture
def sink() -> InMemorySink:
    return InMemorySink()
