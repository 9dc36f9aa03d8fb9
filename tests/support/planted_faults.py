"""Faults planted into healthy networks: each breaks one thing at one place and says where.

Most are in the weights. What weights cannot do (a branch that copies the other, a pattern of two points) is
done by a forward hook, which is there before any capture puts in its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import fno_telemetry as ft


@dataclass(frozen=True)
class Anatomy:
    """Where things are in one network, by canonical path, read off a healthy capture."""

    blocks: tuple[tuple[str, str, str], ...]  # place, spectral, local
    lifting: str  # the last layer of the lifting that has weights
    last: str  # the last layer that has weights
    spectral_first: bool  # whether the spectral branch runs before the local one
    residual: bool
    alike: tuple[bool, ...]  # of each block, whether its branches return the same shape

    @classmethod
    def of(cls, record: ft.CaptureRecord) -> "Anatomy":
        """Read it off a record."""
        weighted = [m.place for m in record.modules if "weight_norm" in m.stats]
        lifting = [m.name for m in record.modules if m.role == "lifting"]
        orders = {m.name: m.order for m in reversed(record.modules)}
        sizes = {m.name: m.stats["count"] for m in record.modules}
        blocks = tuple((b.place, b.spectral[0], b.local[0]) for b in record.blocks)
        inside = [name for name in weighted if any(name.startswith(f"{top}.") for top in lifting)]
        return cls(
            blocks,
            inside[-1],
            weighted[-1],
            orders[blocks[0][1]] < orders[blocks[0][2]],
            any(b.stats.get("update_ratio") is not None for b in record.blocks),
            tuple(sizes[spectral] == sizes[local] for _, spectral, local in blocks),
        )


@dataclass(frozen=True)
class Planted:
    """The modules or blocks that are broken, and those that may be named for them as well."""

    places: tuple[str, ...]

    def named_by(self, layer: str | None) -> bool:
        """Whether a finding at this layer is at the right place: there, inside of it, or right around it."""
        if layer is None:
            return False
        return any(layer == p or layer.startswith((f"{p}.", f"{p}#")) for p in self.places)


Plant = Callable[[nn.Module, Anatomy, int, float], Planted | None]
"""Break the network at a depth (a running number) and strength; None where it has no such place."""


@dataclass(frozen=True)
class Fault:
    """One way to break a network, the rule that should find it, and how strong it is tried."""

    rule: str
    plant: Plant
    strengths: tuple[float, ...]
    gradients: bool = False  # seen with a loss only
    unseen: bool = False  # does not change the loss, however bad it is


def _around(anatomy: Anatomy, *paths: str) -> Planted:
    """The paths, the block that they are a branch of, and the modules that hold them, the whole left out."""
    places = list(paths)
    for path in paths:
        places += [place for place, *branches in anatomy.blocks if path in branches]
        parents = path.split(".")[:-1]
        names = [".".join(parents[:end]) for end in range(1, len(parents) + 1)]
        # A module that holds every block is no place.
        whole = {place.partition("@")[0] for place, *_ in anatomy.blocks}
        places += [
            n for n in names if n not in whole and not any(b[1].startswith(f"{n}.") for b in anatomy.blocks)
        ]
    return Planted(tuple(dict.fromkeys(places)))


def _weights(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that scale what a layer returns: one factor of a factorised weight, and the bias."""
    named = dict(module.named_parameters())
    return [p for name, p in named.items() if "factor" not in name]


def _scale(module: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in _weights(module):
            parameter.mul_(factor)


def _branch(anatomy: Anatomy, depth: int, branch: int) -> str:
    return anatomy.blocks[depth % len(anatomy.blocks)][1 + branch]


def _some_layer(anatomy: Anatomy, depth: int) -> str:
    layers = [anatomy.lifting, *(name for _, *names in anatomy.blocks for name in names)]
    return layers[depth % len(layers)]


def _convolution(network: nn.Module, path: str) -> nn.Module:
    """The module with the weights: itself, or the one that it holds."""
    module = network.get_submodule(path)
    return (
        module if hasattr(module, "weight") or hasattr(module, "weights") else next(iter(module.children()))
    )


def _plain_layer(anatomy: Anatomy, depth: int) -> str:
    layers = [anatomy.lifting, *(local for _, _, local in anatomy.blocks)]
    return layers[depth % len(layers)]


def nan_weight(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _some_layer(anatomy, depth)
    with torch.no_grad():
        first = _weights(network.get_submodule(path))[0]
        first.view(-1)[: int(strength)] = float("nan")
    return _around(anatomy, path)


def huge_weights(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _some_layer(anatomy, depth)
    _scale(network.get_submodule(path), strength)
    return _around(anatomy, path)


def zero_layer(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _some_layer(anatomy, depth)
    _scale(network.get_submodule(path), strength)
    return _around(anatomy, path)


def zero_channels(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _plain_layer(anatomy, depth)
    layer = _convolution(network, path)
    number = max(1, int(strength * layer.weight.shape[0]))
    with torch.no_grad():
        layer.weight[:number] = 0
        if layer.bias is not None:
            layer.bias[:number] = 0
    return _around(anatomy, path)


def bias_only_channels(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted | None:
    path = _plain_layer(anatomy, depth)
    layer = _convolution(network, path)
    if layer.bias is None:
        return None
    number = max(1, int(strength * layer.weight.shape[0]))
    with torch.no_grad():
        layer.weight[:number] = 0
        layer.bias[:number] = 1.0
    return _around(anatomy, path)


def mean_over_samples(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """What passes is the same for every sample, but for a share `strength` of its own."""
    path = anatomy.lifting

    def same(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        mean = output.mean(0, keepdim=True).expand_as(output)
        return mean + strength * (output - mean)

    network.get_submodule(path).register_forward_hook(same)
    return _around(anatomy, path)


def flat_output(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    def flat(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        space = tuple(range(2, output.ndim))
        mean = output.mean(space, keepdim=True)
        return mean + strength * (output - mean)

    network.get_submodule(anatomy.last).register_forward_hook(flat)
    return Planted((*_around(anatomy, anatomy.last).places, "output"))


def weak_spectral(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _branch(anatomy, depth, 0)
    _scale(network.get_submodule(path), strength)
    return _around(anatomy, path)


def weak_local(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _branch(anatomy, depth, 1)
    _scale(network.get_submodule(path), strength)
    return _around(anatomy, path)


def cancelling(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """The branch that runs second undoes the first, but for a share `strength`."""
    alike = [block for block, same in zip(anatomy.blocks, anatomy.alike, strict=True) if same]
    _, *branches = alike[depth % len(alike)]
    first, second = branches if anatomy.spectral_first else reversed(branches)
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, output: torch.Tensor) -> None:
        seen[:] = [torch.from_numpy(output.detach().numpy().copy())]

    def undo(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        return strength * output - seen[0].reshape(output.shape)

    network.get_submodule(first).register_forward_hook(keep)
    network.get_submodule(second).register_forward_hook(undo)
    return _around(anatomy, first, second)


def no_update(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted | None:
    """The activation of a residual block returns (next to) nothing."""
    if not anatomy.residual:
        return None
    block = network.get_submodule(anatomy.blocks[depth % len(anatomy.blocks)][0])
    with torch.no_grad():
        if hasattr(block, "layerscale"):
            block.layerscale.mul_(strength)
        else:
            block.act.register_forward_hook(lambda _, __, output: strength * output)
    return _around(anatomy, anatomy.blocks[depth % len(anatomy.blocks)][0])


def loud_block(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    place, *paths = anatomy.blocks[depth % len(anatomy.blocks)]
    for path in paths:
        _scale(network.get_submodule(path), strength)
    block = place if "@" not in place and place in dict(network.named_modules()) else ""
    if block and hasattr(network.get_submodule(block), "layerscale"):
        with torch.no_grad():
            network.get_submodule(block).layerscale.mul_(strength)
    return _around(anatomy, *paths)


def quiet_lifting(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    _scale(network.get_submodule(anatomy.lifting), strength)
    return _around(anatomy, anatomy.lifting)


def switched_off(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted | None:
    """A large negative bias before the activation of a block."""
    place, _, local = anatomy.blocks[depth % len(anatomy.blocks)]
    layer = _convolution(network, local)
    if layer.bias is None:
        return None
    with torch.no_grad():
        layer.bias.fill_(-strength)
    return Planted((place, local))


def shifted(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted | None:
    """A bias far beyond what a layer's values spread over."""
    path = _plain_layer(anatomy, depth)
    layer = _convolution(network, path)
    if layer.bias is None:
        return None
    with torch.no_grad():
        layer.bias.fill_(strength)
    return _around(anatomy, path)


def loud_channel(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    path = _plain_layer(anatomy, depth)
    with torch.no_grad():
        _convolution(network, path).weight[0].mul_(strength)
    return _around(anatomy, path)


def few_modes(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """Only the lowest modes of a spectral layer are left in what it transforms."""
    path = _branch(anatomy, depth, 0)
    module = network.get_submodule(path)
    if hasattr(module, "n_modes"):
        module.n_modes = (2 * int(strength),) * len(module.n_modes)
    else:
        kept = module.weights.detach()[:, :, : int(strength), : int(strength)].clone()
        module.weights = nn.Parameter(kept)
        module.modes = int(strength)
    return _around(anatomy, path)


def emptied_modes(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """The weights of a share of the modes are zero, the highest of the last axis."""
    path = _branch(anatomy, depth, 0)
    for name, parameter in network.get_submodule(path).named_parameters():
        if name.endswith("factor_3"):
            first = int((1 - strength) * parameter.shape[0])
            parameter.data[first:] = 0
        elif parameter.ndim == 4 and "core" not in name:
            first = int((1 - strength) * parameter.shape[3])
            parameter.data[..., first:] = 0
    return _around(anatomy, path)


def one_direction(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted | None:
    """The modes with negative frequencies of the first axis have no weights."""
    path = _branch(anatomy, depth, 0)
    module = network.get_submodule(path)
    if not hasattr(module, "n_modes"):
        return None  # ours have one direction only
    for name, parameter in module.named_parameters():
        axis = 0 if name.endswith("factor_2") else 2 if parameter.ndim == 4 and "core" not in name else None
        if axis is not None:
            parameter.data.narrow(axis, 0, parameter.shape[axis] // 2).mul_(strength)
    return _around(anatomy, path)


def smoothed(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """What the last layer returns has nothing left above a frequency of 1/8, but for a share."""

    def low_pass(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        field = output if output.ndim == 4 else output.unflatten(-1, (-1, round(output.shape[-1] ** 0.5)))
        spectrum = torch.fft.fft2(field)
        rows, columns = (torch.fft.fftfreq(size).abs() for size in field.shape[-2:])
        keep = ((rows[:, None] <= 1 / 8) & (columns[None, :] <= 1 / 8)).float()
        passed = torch.fft.ifft2(spectrum * (keep + strength * (1 - keep))).real
        return passed.reshape(output.shape)

    network.get_submodule(anatomy.last).register_forward_hook(low_pass)
    return Planted((*_around(anatomy, anatomy.last).places, "output"))


def checkerboard(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    def add(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        side = output.shape[-1] if output.ndim == 4 else round(output.shape[-1] ** 0.5)
        board = (-1.0) ** (torch.arange(side)[:, None] + torch.arange(side)[None, :])
        board = board if output.ndim == 4 else board.flatten()
        return output + strength * output.std() * board

    network.get_submodule(anatomy.last).register_forward_hook(add)
    return Planted((*_around(anatomy, anatomy.last).places, "output"))


class _ScaledGradient(torch.autograd.Function):
    """Passes values as they are and multiplies gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None


def scaled_gradient(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """The gradient of one layer, and of what is before it on the same way, is out of scale."""
    path = _plain_layer(anatomy, depth)

    def scale(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        return _ScaledGradient.apply(output, strength)

    network.get_submodule(path).register_forward_hook(scale)
    return _around(anatomy, path)


def scaled_branch_gradient(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """The weights of one spectral branch get a gradient out of scale; what is before it does not."""
    path = _branch(anatomy, depth, 0)
    branch = network.get_submodule(path)
    # Hooks on parameters do not run when a capture differentiates the loss.
    branch.register_forward_pre_hook(
        lambda _, given: (_ScaledGradient.apply(given[0], 1 / strength), *given[1:])
    )
    branch.register_forward_hook(lambda _, __, output: _ScaledGradient.apply(output, strength))
    return _around(anatomy, path)


def detached(network: nn.Module, anatomy: Anatomy, depth: int, strength: float) -> Planted:
    """The lifting is cut off from the loss."""
    network.get_submodule(anatomy.lifting).register_forward_hook(lambda _, __, output: output.detach())
    return _around(anatomy, anatomy.lifting)


FAULTS: Mapping[str, Fault] = {
    "NaN in a weight": Fault("non_finite", nan_weight, (1, 10)),
    "huge weights": Fault("overflow_risk", huge_weights, (1e20, 1e22)),
    "a layer's weights zero": Fault("dead_layer", zero_layer, (0.0, 1e-9)),
    "channels zero": Fault("dead_channels", zero_channels, (0.25, 0.5)),
    "channels of bias only": Fault("constant_channels", bias_only_channels, (0.25, 1.0)),
    "mean over samples": Fault("input_independent", mean_over_samples, (0.0, 1e-5)),
    "output of means": Fault("constant_output", flat_output, (0.0, 1e-5)),
    "spectral branch zero": Fault("spectral_branch_dead", weak_spectral, (0.0, 1e-6)),
    "spectral branch weak": Fault("spectral_branch_weak", weak_spectral, (0.03, 0.01)),
    "local branch zero": Fault("local_branch_dead", weak_local, (0.0, 1e-6)),
    "branches cancel": Fault("branch_cancellation", cancelling, (0.0, 0.1)),
    "no update": Fault("identity_block", no_update, (0.0, 0.001)),
    "loud block": Fault("exploding_activations", loud_block, (300, 3000)),
    "quiet lifting": Fault("vanishing_activations", quiet_lifting, (1e-4, 1e-6)),
    "switched off": Fault("saturated_activation", switched_off, (30, 1000)),
    "shifted": Fault("drifting_mean", shifted, (30, 100)),
    "loud channel": Fault("heavy_tail", loud_channel, (1000, 5000)),
    "few modes": Fault("mode_truncation", few_modes, (1, 1)),
    "modes zero": Fault("dead_modes", emptied_modes, (0.25, 0.75)),
    "one direction": Fault("one_sided_spectrum", one_direction, (0.0, 0.001)),
    "smoothed": Fault("high_frequency_loss", smoothed, (0.0, 1e-6)),
    "checkerboard": Fault("grid_artifact", checkerboard, (0.5, 2.0)),
    "gradient lost": Fault("vanishing_gradient", scaled_gradient, (1e-8, 1e-10), gradients=True, unseen=True),
    "gradient blown up": Fault(
        "exploding_gradient", scaled_gradient, (1e8, 1e10), gradients=True, unseen=True
    ),
    "gradient of one branch": Fault(
        "branch_gradient_imbalance", scaled_branch_gradient, (1e-3, 1e3), gradients=True, unseen=True
    ),
    "detached": Fault("stalled_update", detached, (0.0,), gradients=True, unseen=True),
}

MILDER: Mapping[str, tuple[float, ...]] = {
    "a layer's weights zero": (0.1, 0.01),
    "channels zero": (0.0625,),
    "channels of bias only": (0.0625,),
    "mean over samples": (0.1, 0.01),
    "output of means": (0.1, 0.01),
    "spectral branch weak": (0.3, 0.1),
    "local branch zero": (0.3, 0.1, 0.01),
    "branches cancel": (0.5, 0.25),
    "no update": (0.3, 0.1),
    "loud block": (3, 10, 30),
    "quiet lifting": (0.3, 0.1, 0.01),
    "shifted": (1, 3, 10),
    "loud channel": (10, 100),
    "smoothed": (0.1, 0.01),
    "checkerboard": (0.1, 0.2),
}
"""Strengths that a network may live with; some of them change its loss all the same."""

INPUTS: tuple[tuple[str, str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("input with NaN", "bad_input", lambda x: torch.where(x > 2, torch.nan, x)),
    ("input blank", "bad_input", torch.zeros_like),
    ("input constant", "bad_input", lambda x: torch.full_like(x, 3.0)),
    ("input of counts", "bad_input", lambda x: (300 * x.abs()).round()),
    ("samples all the same", "bad_input", lambda x: x[:1].repeat(len(x), 1, 1, 1)),
)
"""What is wrong with samples: name, rule, how they are spoiled."""

SERIES: Mapping[str, tuple[str, Plant, tuple[float | None, ...]]] = {
    "loud from a step on": ("collapse_at_step", loud_block, (None, None, 300, 300)),
    "dead from a step on": ("collapse_at_step", zero_layer, (None, None, None, 0.0)),
    "fading spectral branch": ("trend", weak_spectral, (0.8, 0.4, 0.2, 0.1)),
}
"""Faults that come with time: rule, how it is planted, its strength at each step (None: not yet)."""
