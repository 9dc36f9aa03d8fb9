"""Accidents with parameters: left out of the optimizer, frozen, detached, badly made or loaded."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import nn

from benchmarks.natural_failures.kinds.contract import Kind, Places
from benchmarks.natural_failures.networks.families import FAMILIES
from benchmarks.natural_failures.setup import Setup

NEEDS_SPECTRAL = ("burgers", "darcy")
"""Tasks that local layers cannot do."""


def optimizer_has_a_part(setup: Setup) -> Places:
    """Parameters are given by a name that fits only the projection."""
    family = FAMILIES[setup.family]
    setup.optimizer = lambda network: torch.optim.AdamW(
        [p for name, p in network.named_parameters() if name.startswith(family.projection)], setup.rate
    )
    return ("model", rf"^({family.lifting}|{family.blocks}|w\d|conv\d|fc1)")


def complex_parameters_dropped(setup: Setup) -> Places:
    """Only parameters that are floating point are given to the optimizer; complex ones are not."""
    setup.optimizer = lambda network: torch.optim.AdamW(
        [p for p in network.parameters() if p.is_floating_point()], setup.rate
    )
    return ("model", FAMILIES[setup.family].spectral, FAMILIES[setup.family].blocks)


def blocks_frozen(setup: Setup) -> Places:
    """The blocks were frozen for fine-tuning, but the network is new."""
    blocks = FAMILIES[setup.family].blocks
    setup.rework.append(_freeze(lambda name: name.startswith((blocks, "w"))))
    return ("model", rf"^({blocks}|w\d)")


def lifting_detached(setup: Setup) -> Places:
    """The lifting runs under no_grad, as a copied piece of code for feature extraction does; it is tiny."""
    lifting = FAMILIES[setup.family].lifting

    def change(network: nn.Module) -> nn.Module:
        network.get_submodule(lifting).register_forward_hook(lambda _, __, output: output.detach())
        with torch.no_grad():
            for parameter in network.get_submodule(lifting).parameters():
                parameter.mul_(0.05)
        return network

    setup.rework.append(change)
    return ("model", rf"^{lifting}")


def blocks_detached(setup: Setup) -> Places:
    """What the blocks return is detached, as left from debugging."""
    family = FAMILIES[setup.family]

    def change(network: nn.Module) -> nn.Module:
        network.get_submodule(family.projection).register_forward_pre_hook(lambda _, x: x[0].detach())
        return network

    setup.rework.append(change)
    return ("model", rf"^({family.lifting}|{family.blocks}|w\d|conv\d|fc1|cnn|inter|merge|up|decoder)")


def layer_scale_never_grows(setup: Setup) -> Places:
    """Layer scale starts at 1e-6, and its parameters are in no group of the optimizer."""
    if setup.family == "unet":
        setup.design.more["layer_scale"] = 1e-6
        names: tuple[str, ...] = ("gamma1", "gamma2")
        places = ("mixers",)
    else:  # as written: a scale of the features before the last layers
        names, places = ("scale",), ("scale", "fc1", "fc2", "model")
        setup.rework.append(_scale(lambda name: name == "scale", 1e-4))
    setup.optimizer = lambda network: torch.optim.AdamW(
        [p for name, p in network.named_parameters() if not name.endswith(names)], setup.rate
    )
    return ("model", *places)


def spectral_weights_tiny(setup: Setup) -> Places:
    """Spectral weights are divided by width², twice, and trained by SGD: they never come up."""
    family = FAMILIES[setup.family]
    setup.rework.append(_of_spectral(family.spectral, 1e-6))
    setup.optimizer = lambda network: torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if not p.is_complex()]},
            {"params": [p for p in network.parameters() if p.is_complex()], "lr": 1e-6},
        ],
        setup.rate,
    )
    return ("model", family.spectral, family.blocks)


def spectral_weights_zero(setup: Setup) -> Places:
    """Factors of a spectral weight all start at zero, so that none of them ever gets a gradient."""
    family = FAMILIES[setup.family]
    setup.rework.append(_of_spectral(family.spectral, 0.0))
    return ("model", family.spectral, family.blocks)


def weights_loaded_in_part(setup: Setup) -> Places:
    """Trained weights whose names fit in part are loaded with strict=False; nothing is trained any more."""
    blocks = FAMILIES[setup.family].blocks

    def load(network: nn.Module) -> None:
        trained: dict[str, torch.Tensor] = setup.facts["healthy_weights"]()
        kept = {name: value for name, value in trained.items() if not name.startswith((blocks, "w"))}
        network.load_state_dict(kept, strict=False)

    setup.before_training, setup.steps = load, 0
    return ("model", rf"^({blocks}|w\d)", "output")


def _freeze(is_frozen: Callable[[str], bool]) -> Callable[[nn.Module], nn.Module]:
    def change(network: nn.Module) -> nn.Module:
        for name, parameter in network.named_parameters():
            if is_frozen(name):
                parameter.requires_grad_(False)
        return network

    return change


def _scale(is_meant: Callable[[str], bool], factor: float) -> Callable[[nn.Module], nn.Module]:
    def change(network: nn.Module) -> nn.Module:
        _multiply((p for name, p in network.named_parameters() if is_meant(name)), factor)
        return network

    return change


def _of_spectral(expression: str, factor: float) -> Callable[[nn.Module], nn.Module]:
    def change(network: nn.Module) -> nn.Module:
        for name, module in network.named_modules():
            if re.search(expression, name):
                _multiply(module.parameters(), factor)
        return network

    return change


def _multiply(parameters: Iterable[nn.Parameter], factor: float) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(factor)


KINDS = (
    Kind("optimizer has a part only", "part does not move", optimizer_has_a_part),
    Kind(
        "complex parameters dropped",
        "part does not move",
        complex_parameters_dropped,
        ("FNO", "UNO", "written"),
        NEEDS_SPECTRAL,
    ),
    Kind("blocks frozen", "part does not move", blocks_frozen),
    Kind("lifting detached", "part does not move", lifting_detached),
    Kind("blocks detached", "part does not move", blocks_detached),
    Kind("layer scale never grows", "layer scale", layer_scale_never_grows, ("unet", "written")),
    Kind("spectral weights tiny", "spectral weights dead", spectral_weights_tiny, ("FNO", "written", "unet")),
    Kind("spectral factors zero", "spectral weights dead", spectral_weights_zero, ("TFNO",), NEEDS_SPECTRAL),
    Kind("weights loaded in part", "weights in part", weights_loaded_in_part),
)
