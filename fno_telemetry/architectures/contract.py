"""What an architecture is: a kind of network that can be built by its name, or to fit a checkpoint."""

from collections.abc import Mapping
from typing import Protocol

from torch import nn

EXAMPLE_SHAPE = (2, 1, 16, 16)
"""Two samples of one channel and 16 x 16 pixels."""


class Architecture(Protocol):
    """A kind of network that can be built for some data, or recognised in a checkpoint and built to fit it.

    `fno_telemetry.testing.architectures.check_architecture` tests everything that is promised here.
    """

    @property
    def name(self) -> str:
        """The name of the plug-in."""
        ...

    def defaults(self, channels: int, size: int) -> dict[str, object]:
        """Return the constructor arguments for data of `channels` channels and `size` pixels a side."""
        ...

    def example_arguments(self) -> dict[str, object]:
        """Return the constructor arguments of a small network, which takes an input of EXAMPLE_SHAPE.

        Testers build and run it.
        """
        ...

    def arguments(
        self, shapes: Mapping[str, tuple[int, ...]], hyper_parameters: Mapping[str, object]
    ) -> dict[str, object] | None:
        """Return the constructor arguments that a checkpoint's parameter shapes imply.

        `shapes` has names relative to the network. An argument that follows neither from the shapes nor from
        the hyper parameters is left out. None when these are not this architecture's weights, also when a
        shape makes no sense: this never raises.
        """
        ...

    def build(self, **arguments: object) -> nn.Module:
        """Return the network.

        ModelError for an impossible argument, or an unknown one; then it names those there are.
        """
        ...
