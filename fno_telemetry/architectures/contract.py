"""What makes a network buildable by name: the one Protocol that an architecture meets."""

from collections.abc import Mapping
from typing import Protocol

from torch import nn


class Architecture(Protocol):
    """A network that can be built for some data, or recognised in a checkpoint and built to fit it."""

    @property
    def name(self) -> str:
        """The name that users type."""
        ...

    def defaults(self, channels: int, size: int) -> dict[str, object]:
        """Return the constructor arguments for data of `channels` channels and `size` pixels a side."""
        ...

    def arguments(
        self, shapes: Mapping[str, tuple[int, ...]], hyper_parameters: Mapping[str, object]
    ) -> dict[str, object] | None:
        """Return the constructor arguments that a checkpoint's parameter shapes imply.

        `shapes` has names relative to the network. An argument that neither the shapes nor the hyper
        parameters tell is left out. None when these are not this architecture's weights; never raises.
        """
        ...

    def build(self, **arguments: object) -> nn.Module:
        """Return the network; ModelError on an unknown or impossible argument."""
        ...
