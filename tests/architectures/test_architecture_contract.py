"""What every architecture promises, whichever it is."""

import pytest

from fno_telemetry import plugins
from fno_telemetry.testing.architectures import check_architecture

NAMES = plugins.names("architectures")


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_keeps_its_contract(name: str) -> None:
    check_architecture(plugins.load("architectures", name), name)


@pytest.mark.parametrize("name", NAMES)
def test_no_other_architecture_recognises_its_checkpoints(name: str) -> None:
    architecture = plugins.load("architectures", name)
    state = architecture.build(**architecture.example_arguments()).state_dict()
    shapes = {parameter: tuple(value.shape) for parameter, value in state.items()}
    found = [
        other for other in NAMES if plugins.load("architectures", other).arguments(shapes, {}) is not None
    ]
    assert found == [name]
