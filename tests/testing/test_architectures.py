"""The tester of architectures finds each broken promise, and says which in one line."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from fno_telemetry.errors import ModelError
from fno_telemetry.testing.architectures import check_architecture


def recognise(shapes: dict[str, tuple[int, ...]], hyper_parameters: dict[str, object]) -> Any:
    weight = shapes.get("lift.weight", ())
    return {"width": weight[0]} if len(weight) == 4 and len(shapes) == 2 else None


def build(**arguments: Any) -> nn.Module:
    unknown = [name for name in arguments if name != "width"]
    if unknown:
        raise ModelError(f"no argument {unknown[0]!r}. Known: width.")
    return nn.Sequential(OrderedDict(lift=nn.Conv2d(1, arguments.get("width", 8), 1)))


@dataclass
class Simple:
    """An architecture that keeps its contract, unless one of its methods is replaced."""

    name: Any = "simple"
    defaults: Any = lambda channels, size: {"width": 8}
    example_arguments: Any = lambda: {"width": 2}
    arguments: Any = recognise
    build: Any = build


def raises(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_an_architecture_that_keeps_its_contract_passes() -> None:
    check_architecture(Simple(), name="simple")


def ignores_what_it_does_not_know(**arguments: Any) -> nn.Module:
    return build(**{name: value for name, value in arguments.items() if name == "width"})


def stumbles_over_settings(shapes: Any, settings: dict[str, Any]) -> Any:
    return {"width": settings["depth"] * 1.5} if settings else recognise(shapes, settings)


def names_nothing(**arguments: Any) -> nn.Module:
    if set(arguments) - {"width"}:
        raise ModelError("no_such_argument is not known")
    return build(**arguments)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"name": ""}, "`name` is '': a text was expected"),
        ({"example_arguments": None}, "the architecture 'simple' has no method `example_arguments`"),
        ({"example_arguments": raises(KeyError("width"))}, "`example_arguments` raised KeyError: 'width'"),
        (
            {"example_arguments": lambda: {"depth": 1}},
            "`build` of 'simple', given its example arguments, raised ModelError: no argument 'depth'",
        ),
        ({"build": lambda **_: "network"}, "`build` returned a str: a torch.nn.Module was expected"),
        (
            {"build": lambda **_: nn.Linear(3, 3)},
            "the example network of 'simple', given (2, 1, 16, 16), raised RuntimeError",
        ),
        ({"arguments": lambda *_: None}, "'simple' does not recognise its own network: `arguments` returned"),
        (
            {"arguments": lambda *_: {"width": 3}},
            "reads other arguments off its own shapes: rebuilt, lift.bias is (3,) instead of (2,)",
        ),
        (
            {"arguments": lambda shapes, _: {"width": shapes.get("lift.bias", (5,))[0]}},
            "'simple' takes {'no.such.layer.weight': (7, 5), 'no.such.layer.bias': (7,)} for its own network",
        ),
        (
            {"arguments": lambda s, _: {"width": s["lift.weight"][0]} if "lift.weight" in s else None},
            "`arguments` of 'simple' raised IndexError for shapes that it does not know: tuple index",
        ),
        (
            {"arguments": stumbles_over_settings},
            "`arguments` of 'simple' raised TypeError",
        ),
        ({"build": ignores_what_it_does_not_know}, "'simple' was built with an unknown argument"),
        (
            {"build": lambda width=8: build(width=width)},
            "an unknown argument of 'simple' raised TypeError",
        ),
        ({"build": names_nothing}, "the error for an unknown argument names no width: no_such_argument"),
        (
            {"defaults": lambda channels, size: {"width": channels - 3}},
            "`build` of 'simple', given its defaults for 1 channels of 16 x 16 pixels, raised RuntimeError",
        ),
    ],
)
def test_a_broken_promise_is_named_in_one_line(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_architecture(replace(Simple(), **broken))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_returns_no_tensor_fails() -> None:
    class Silent(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> Any:
            return {"shape": x.shape[0]}

    with pytest.raises(AssertionError, match="the example network of 'simple' returned a dict without a ten"):
        check_architecture(Simple(build=lambda **_: Silent(1, 1, 1)))


def test_an_architecture_has_the_name_of_its_plug_in() -> None:
    with pytest.raises(AssertionError, match="the architecture is called 'simple', and the plug-in 'unet'"):
        check_architecture(Simple(), name="unet")


def test_the_random_numbers_of_the_caller_stay_as_they_are() -> None:
    before = torch.get_rng_state()
    check_architecture(Simple())
    assert torch.equal(before, torch.get_rng_state())
