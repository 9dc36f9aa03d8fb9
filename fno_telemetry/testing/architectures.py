"""Checks that an architecture keeps its contract.

In the tests of a package that brings one:

    def test_the_contract():
        check_architecture(UNET, name="unet")

Each check raises an AssertionError that says in one line which promise is broken.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from fno_telemetry.architectures.contract import EXAMPLE_SHAPE, Architecture
from fno_telemetry.errors import ModelError
from fno_telemetry.testing.promises import calling, require
from fno_telemetry.tracing.nested_tensors import tensors_in

Shapes = dict[str, tuple[int, ...]]

_METHODS = ("defaults", "example_arguments", "arguments", "build")
_UNKNOWN = "no_such_argument"
_FOREIGN: Shapes = {"no.such.layer.weight": (7, 5), "no.such.layer.bias": (7,)}


def check_architecture(architecture: Architecture, name: str | None = None) -> None:
    """Run all CHECKS; `name` is the plug-in's, if it is one. The global random numbers stay as they are."""
    check_members(architecture)
    found = architecture.name
    if name is not None:
        one_name = f"the architecture is called {found!r}, and the plug-in {name!r}: one name was expected"
        require(found == name, one_name)
    with torch.random.fork_rng(devices=[]):
        for check in CHECKS:
            check(architecture)


def check_members(architecture: Architecture) -> None:
    """An architecture has a name and every method of the contract."""
    name = getattr(architecture, "name", None)
    require(isinstance(name, str) and name, f"`name` is {name!r}: a text was expected")
    missing = [method for method in _METHODS if not callable(getattr(architecture, method, None))]
    require(not missing, f"the architecture {name!r} has no method `{', '.join(missing)}`")


def check_example(architecture: Architecture) -> None:
    """The example network can be built, and runs on an input of EXAMPLE_SHAPE."""
    network = _build_example(architecture).eval()
    with torch.no_grad(), calling(f"the example network of {architecture.name!r}, given {EXAMPLE_SHAPE},"):
        output = network(torch.rand(EXAMPLE_SHAPE))
    require(
        any(True for _ in tensors_in(output)),
        f"the example network of {architecture.name!r} returned a {type(output).__name__} without a tensor",
    )


def check_recognition(architecture: Architecture) -> None:
    """The example network is recognised from its shapes alone, and can be built again to fit them."""
    shapes = _shapes(_build_example(architecture))
    arguments = _arguments(architecture, shapes)
    if arguments is None:
        raise AssertionError(
            f"{architecture.name!r} does not recognise its own network: `arguments` returned None for the "
            "shapes of its example"
        )
    rebuilt = _shapes(_build(architecture, arguments, "the arguments that it read off its own shapes"))
    for name in sorted({*shapes, *rebuilt}):
        require(
            shapes.get(name) == rebuilt.get(name),
            f"{architecture.name!r} reads other arguments off its own shapes: rebuilt, {name} is "
            f"{rebuilt.get(name)} instead of {shapes.get(name)}",
        )


def check_foreign_shapes(architecture: Architecture) -> None:
    """Weights of another network, or none, are not recognised."""
    for shapes in (_FOREIGN, {}):
        found = _arguments(architecture, shapes)
        require(
            found is None, f"{architecture.name!r} takes {shapes} for its own network, built with {found}"
        )


def check_odd_shapes(architecture: Architecture) -> None:
    """Shapes and hyper parameters that make no sense raise nothing."""
    shapes = _shapes(_build_example(architecture))
    for change in (_no_axes, _one_axis_less, _one_axis_more, _empty):
        _arguments(architecture, {name: change(shape) for name, shape in shapes.items()})
        for name, shape in shapes.items():
            _arguments(architecture, shapes | {name: change(shape)})
    for left_out in shapes:
        _arguments(architecture, {name: shape for name, shape in shapes.items() if name != left_out})
    circular: dict[str, object] = {"config": None, "depth": "four", "layers": [1, {}]}
    circular["itself"] = circular
    _arguments(architecture, shapes, circular)


def check_unknown_argument(architecture: Architecture) -> None:
    """An unknown argument is a ModelError in one line that names the arguments there are."""
    text = None
    with calling(f"an unknown argument of {architecture.name!r}", expected="a ModelError was expected"):
        try:
            architecture.build(**{_UNKNOWN: 1})
        except ModelError as error:
            text = str(error)
    if text is None:
        raise AssertionError(f"{architecture.name!r} was built with an unknown argument, {_UNKNOWN}=1")
    with calling("`example_arguments`"):
        known = list(architecture.example_arguments())
    missing = [name for name in (_UNKNOWN, *known) if name not in text]
    require(not missing, f"the error for an unknown argument names no {', '.join(missing)}: {text}")


def check_defaults(architecture: Architecture) -> None:
    """The default arguments build a network, for small data and for larger data of several channels."""
    for channels, size in ((1, 16), (3, 64)):
        with calling(f"`defaults({channels}, {size})`"):
            arguments = architecture.defaults(channels, size)
        _build(architecture, arguments, f"its defaults for {channels} channels of {size} x {size} pixels")


CHECKS: tuple[Callable[[Architecture], None], ...] = (
    check_members,
    check_example,
    check_recognition,
    check_foreign_shapes,
    check_odd_shapes,
    check_unknown_argument,
    check_defaults,
)
"""All checks, the quick ones first."""


def _build_example(architecture: Architecture) -> nn.Module:
    with calling("`example_arguments`"):
        arguments = architecture.example_arguments()
    return _build(architecture, arguments, "its example arguments")


def _build(architecture: Architecture, arguments: Mapping[str, object], which: str) -> nn.Module:
    with calling(f"`build` of {architecture.name!r}, given {which},"):
        network: object = architecture.build(**arguments)
    if not isinstance(network, nn.Module):
        raise AssertionError(f"`build` returned a {type(network).__name__}: a torch.nn.Module was expected")
    return network


def _shapes(network: nn.Module) -> Shapes:
    with calling("`state_dict` of the network"):
        return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _arguments(
    architecture: Architecture, shapes: Shapes, hyper_parameters: Mapping[str, object] | None = None
) -> dict[str, object] | None:
    with calling(
        f"`arguments` of {architecture.name!r}",
        when="for shapes that it does not know",
        expected="None was expected",
    ):
        return architecture.arguments(shapes, hyper_parameters or {})


def _no_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return ()


def _one_axis_less(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:]


def _one_axis_more(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1)


def _empty(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (0,) * len(shape)
