"""The map of a model: the role and axes of each module, and the blocks in which branches are added."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

from fno_telemetry.errors import MapError
from fno_telemetry.mapping.layouts import AxesGuide
from fno_telemetry.records import Role
from fno_telemetry.wording import hint_at_names

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class GivenRole:
    """A role and axes given by hand for a module; None means detected."""

    role: Role | None = None
    spatial_axes: tuple[int, ...] | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Raise MapError for an unknown role, a negative axis or an axis given twice."""
        if self.role is not None and self.role not in ROLES:
            raise MapError(f"unknown role {self.role!r}. {hint_at_names(str(self.role), ROLES)}")
        axes = [] if self.spatial_axes is None else list(self.spatial_axes)
        axes += [] if self.channel_axis is None else [self.channel_axis]
        if any(isinstance(axis, bool) or not isinstance(axis, int) or axis < 0 for axis in axes):
            raise MapError(f"axes are counted from 0, but {axes} was given")
        if len(set(axes)) < len(axes):
            raise MapError(
                f"each axis can be given only once, as spatial or as channel axis, but {axes} was given"
            )


@dataclass(frozen=True)
class MappedModule:
    """A module that was called, or an activation function called inside a module (`parent#name`)."""

    name: str
    class_name: str
    role: Role
    reason: str
    spatial_axes: tuple[int, ...] = ()
    channel_axis: int | None = None
    calls: int = 1
    leaf: bool = True
    shape: tuple[int, ...] = ()  # of the first tensor that it returned
    modes: tuple[int, ...] | None = None  # how many frequencies a spectral module keeps along each axis


@dataclass(frozen=True)
class MappedBlock:
    """A sum of a spectral and a local branch, in one call of the module that contains it.

    `residual` is true if the block's own input is added too.
    """

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]
    residual: bool = False


@dataclass(frozen=True)
class ModelMap:
    """The called modules in order of completion, the blocks, and the axes that follow from them."""

    modules: tuple[MappedModule, ...]
    blocks: tuple[MappedBlock, ...]
    axes: AxesGuide
    roles: Mapping[str, Role] = field(default_factory=dict)  # given by hand, by path
    numbered: frozenset[str] = frozenset()  # paths whose forward holds several sums
    # By path and number of a call: the numbers of its sums, in the order in which they are reported.
    order_of_sums: Mapping[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    runs_whole: bool = False  # the model itself is called, not only its modules
    warnings: tuple[str, ...] = ()  # what is odd, and what structure detection could not put back

    def __getitem__(self, name: str) -> MappedModule:
        return self._by_name[name]

    def get(self, name: str) -> MappedModule | None:
        """Return the entry of the module at `name`, None if it was not called."""
        return self._by_name.get(name)

    def is_residual(self, name: str, call: int) -> bool:
        """Whether the block of this name, in this call, adds its own input."""
        return any(block.residual for block in self.blocks if (block.name, block.call) == (name, call))

    @cached_property
    def _by_name(self) -> dict[str, MappedModule]:
        return {module.name: module for module in self.modules}


def block_name(path: str, numbered: Iterable[str], number: int) -> str:
    """Return the block name of sum `number`, counted from 0, in the forward of the module at `path`."""
    return f"{path}#{number}" if path in numbered or not path or number else path
