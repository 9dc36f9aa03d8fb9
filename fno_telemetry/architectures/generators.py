"""What the built-in networks share besides layers: output, arguments, and recognition in checkpoints."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fno_telemetry.architectures.layers import INPUT_TRANSFORMS
from fno_telemetry.errors import ModelError
from fno_telemetry.wording import hint_at_names

OUTPUT_MODES = ("real_imag", "amp_phase")
PARTS = 2  # real and imaginary part

Shapes = Mapping[str, tuple[int, ...]]
Output = Tensor | tuple[Tensor, Tensor]


def add_output(
    network: nn.Module, hidden_channels: int, patches: int, out_channels: int, output_mode: str
) -> None:
    """Give `network` its last 1x1 convolutions: `output_proj`, or `output_amp` and `output_phase`."""
    if output_mode == "amp_phase":
        network.output_amp = nn.Conv2d(hidden_channels, patches, kernel_size=1)
        network.output_phase = nn.Conv2d(hidden_channels, patches, kernel_size=1)
    else:
        network.output_proj = nn.Conv2d(hidden_channels, out_channels * patches, kernel_size=1)


def apply_output(network: nn.Module, x: Tensor, patches: int) -> Output:
    """Apply what `add_output` added.

    Returns (B, H, W, C, 2), real and imaginary part last; in amp_phase mode the tuple (amplitude in
    [0, 1], phase in radians in [-pi, pi]), each (B, C, H, W).
    """
    if not hasattr(network, "output_proj"):
        amplitude, phase = network.get_submodule("output_amp")(x), network.get_submodule("output_phase")(x)
        return torch.sigmoid(amplitude), math.pi * torch.tanh(phase)
    parts = network.get_submodule("output_proj")(x)
    batch, channels, height, width = parts.shape
    patched: Tensor = parts.view(batch, channels // patches, patches, height, width)
    return patched.permute(0, 3, 4, 2, 1)


def count_children(shapes: Shapes, parent: str) -> int:
    """Return how many children directly below `parent` these parameter names show."""
    start = parent + "."
    return len({name[len(start) :].partition(".")[0] for name in shapes if name.startswith(start)})


@dataclass(frozen=True)
class Generator:
    """An `Architecture` made from a network class.

    `blocks` is the path of its Fourier blocks; `depth` returns, by argument, how many blocks the names in a
    checkpoint show.
    """

    name: str
    network: Callable[..., nn.Module]
    blocks: str
    depth: Callable[[Shapes], dict[str, int]]

    def defaults(self, channels: int, size: int) -> dict[str, object]:
        """Return every constructor argument, for data of `channels` channels and `size` pixels a side."""
        return self._known() | {"C": channels, "modes": max(1, min(12, size // 4))}

    def example_arguments(self) -> dict[str, object]:
        """Return the constructor arguments of a small network of two blocks."""
        # Every count of blocks has an argument of the same name.
        blocks = dict.fromkeys(self.depth({}), 2)
        return {**blocks, "hidden_channels": 4, "modes": 3, "C": 1}

    def arguments(self, shapes: Shapes, hyper_parameters: Mapping[str, object]) -> dict[str, object] | None:
        """Return the constructor arguments that a checkpoint implies; None when it is not of this class.

        The names decide: the children of this network may have no parameter that the network does not have,
        and its blocks must have every kind of parameter that its blocks have. Other parameters may be
        missing, and shapes may contradict each other: loading the weights reports those.
        """
        lifted = shapes.get("lifter.conv1.weight", ())
        weights = shapes.get(f"{self.blocks}.0.spectral.weights", ())
        if len(lifted) != 4 or len(weights) != 4 or weights[2] != weights[3]:
            return None
        amplitude, projection = shapes.get("output_amp.weight", ()), shapes.get("output_proj.weight", ())
        patches = amplitude[0] if amplitude else projection[0] // PARTS if projection else lifted[1]
        found: dict[str, object] = {
            "in_channels": lifted[1] // patches if patches else 0,
            "hidden_channels": lifted[0],
            **self.depth(shapes),
            "modes": weights[2],
            "C": patches,
            "output_mode": "amp_phase" if amplitude else "real_imag",
        }
        try:
            with torch.device("meta"):
                expected = self.build(**found).state_dict()
        except ModelError:
            return None
        children = {name.partition(".")[0] for name in expected}
        if any(name.partition(".")[0] in children and name not in expected for name in shapes):
            return None
        if self._block_parameters(shapes) != self._block_parameters(expected):
            return None
        transform = find_setting(hyper_parameters, ("fno_input_transform", "input_transform"))
        return found if transform is None else found | {"input_transform": transform}

    def build(self, **arguments: object) -> nn.Module:
        """Return the network; ModelError on an unknown or impossible argument, listing the known ones."""
        known = self._known()
        unknown = [name for name in arguments if name not in known]
        if unknown:
            raise ModelError(
                f"The architecture {self.name!r} has no argument {unknown[0]!r}. "
                f"{hint_at_names(unknown[0], known)}"
            )
        for name, value in arguments.items():
            if expected := _objection(name, value):
                raise ModelError(
                    f"{self.name!r} cannot be built with {name}={value!r}: {expected} was expected. "
                    f"Its arguments: {', '.join(known)}."
                )
        try:
            return self.network(**arguments)
        except (RuntimeError, MemoryError, ValueError, TypeError, OverflowError) as error:
            raise ModelError(
                f"{self.name!r} cannot be built with {arguments}: {type(error).__name__}: {error}"
            ) from error

    def _block_parameters(self, names: Iterable[str]) -> set[str]:
        """Return the names that parameters have inside a block, whichever block it is."""
        start = self.blocks + "."
        return {name[len(start) :].partition(".")[2] for name in names if name.startswith(start)}

    def _known(self) -> dict[str, object]:
        """Return the arguments of the class with their defaults."""
        return {name: item.default for name, item in inspect.signature(self.network).parameters.items()}


def find_setting(settings: Mapping[str, object], names: tuple[str, ...], depth: int = 4) -> str | None:
    """Return the first text that has one of `names`, in `settings` or in mappings inside it."""
    for name in names:
        if isinstance(value := settings.get(name), str):
            return value
    # A pickled mapping may contain itself, so the depth is limited.
    inner = [value for value in settings.values() if isinstance(value, Mapping)] if depth else []
    return next((text for value in inner if (text := find_setting(value, names, depth - 1))), None)


def _objection(name: str, value: object) -> str | None:
    """Return what was expected instead of `value`, or None when `value` can be used."""
    choices = {"input_transform": tuple(INPUT_TRANSFORMS), "output_mode": OUTPUT_MODES}.get(name)
    if choices is not None:
        return None if value in choices else " or ".join(choices)
    least = 0 if name == "cnn_blocks" else 1
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return None
    return f"a whole number of at least {least}"
