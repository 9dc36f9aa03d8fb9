"""What each module of a model is: its role, its axes, and where branches meet."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from fno_telemetry.errors import MapError
from fno_telemetry.mapping.layouts import AxesGuide
from fno_telemetry.records import Role

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class GivenRole:
    """What somebody states about a module; None leaves it to what is seen."""

    role: Role | None = None
    spatial_axes: tuple[int, ...] | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; MapError."""
        if self.role is not None and self.role not in ROLES:
            raise MapError(f"there is no role {self.role!r}; known: {', '.join(ROLES)}")
        axes = [] if self.spatial_axes is None else list(self.spatial_axes)
        axes += [] if self.channel_axis is None else [self.channel_axis]
        if any(isinstance(axis, bool) or not isinstance(axis, int) or axis < 0 for axis in axes):
            raise MapError(f"axes are counted from 0, given were {axes}")
        if len(set(axes)) < len(axes):
            raise MapError(f"an axis is spatial or the channel, and named once; given were {axes}")


@dataclass(frozen=True)
class MappedModule:
    """One module that was called, or one activation function called inside a module (`parent#name`)."""

    name: str
    class_name: str
    role: Role
    reason: str
    spatial_axes: tuple[int, ...] = ()
    channel_axis: int | None = None
    calls: int = 1
    leaf: bool = True
    shape: tuple[int, ...] = ()  # of the first tensor it returned
    modes: tuple[int, ...] | None = None  # how many frequencies a spectral one keeps along each axis


@dataclass(frozen=True)
class MappedBlock:
    """One place where a spectral and a local branch are added, in one call of the module around it."""

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]


@dataclass(frozen=True)
class ModelMap:
    """The modules that were called, in order of completion, the blocks, and what they imply."""

    modules: tuple[MappedModule, ...]
    blocks: tuple[MappedBlock, ...]
    axes: AxesGuide
    roles: Mapping[str, Role] = field(default_factory=dict)  # stated by hand, by path
    numbered: frozenset[str] = frozenset()  # paths whose forward holds several sums
    runs_whole: bool = False  # the model itself is called, not only parts of it

    def __getitem__(self, name: str) -> MappedModule:
        return self._by_name[name]

    def get(self, name: str) -> MappedModule | None:
        """Return what is known of the module at `name`, None when it was not called."""
        return self._by_name.get(name)

    @property
    def _by_name(self) -> dict[str, MappedModule]:
        return {module.name: module for module in self.modules}


def block_name(path: str, numbered: Iterable[str], number: int) -> str:
    """Return the name of the `number`-th sum in the forward of the module at `path`."""
    return f"{path}#{number}" if path in numbered or not path or number else path
