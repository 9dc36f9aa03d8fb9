"""What a capture leaves behind: frozen plain data, without torch, that every sink and reader shares.

`None` means undefined; the reason then stands in `reasons` under the same name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fno_telemetry.quantities import Quantity

if TYPE_CHECKING:
    from fno_telemetry.findings import Finding

SCHEMA = 1
"""Number of the report format that this version writes."""

Role = Literal["lifting", "spectral", "local", "block", "activation", "norm", "projection", "other"]
"""What a module is to its network."""

StepKind = Literal["step", "epoch"]
"""What a checkpoint's number counts."""

ROOT = "(model)"
"""The model itself, whose path is empty, in places that people read."""

Value = int | float | None
"""One statistic: exact integers stay integers; None is undefined, never zero."""

V = TypeVar("V", covariant=True)


class FrozenMapping(Mapping[str, V]):
    """A read-only mapping that compares equal to any mapping with the same items, and can be pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"


def place_name(name: str, call: int, item: str | None = None) -> str:
    """Return a path with its call, where it is not the first, and its output, where it has a name.

    The model itself, whose path is empty, is called "(model)".
    """
    return (name or ROOT) + (f"@{call}" if call else "") + ("" if item is None else f"[{item}]")


def step_label(step: int | None, step_kind: StepKind | None, checkpoint: str | None) -> str:
    """Return "step1000" or "epoch3" where the step is known, else the checkpoint's name, else "untrained"."""
    if step is not None:
        return f"{step_kind or 'step'}{step}"
    return checkpoint or "untrained"


def spell_step(step: int, step_kind: str | None) -> str:
    """Return "step 1000" or "epoch 3", for people to read."""
    return f"{step_kind or 'step'} {step}"


def freeze(value: Any) -> Any:
    """Return `value` with every list a tuple and every dict a read-only mapping, at any depth."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return freeze_mapping(value) if isinstance(value, Mapping) else value


def freeze_mapping(items: Mapping[str, Any]) -> "FrozenMapping[Any]":
    """`freeze` for what is known to be a mapping."""
    return FrozenMapping({key: freeze(item) for key, item in items.items()})


@dataclass(frozen=True)
class Histogram:
    """Counts of signed values; bin i holds edges[i] <= x < edges[i + 1] to within the sketch's error."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True)
class LogHistogram:
    """Counts over log10 |x| on edges that are the same in every record; exact zeros stand apart."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int
    zeros: int


@dataclass(frozen=True)
class Spectrum:
    """Shares of energy over frequency, the mean of each field left out; frequencies in cycles per sample.

    `bands` are radial: bin i holds band_edges[i] < |f| <= band_edges[i + 1]. `axis_bands` has one row per
    spatial axis over |f| along that axis, where the first bin includes zero. Each row sums to 1.
    """

    sizes: tuple[int, ...]
    fields: int
    fields_left_out: int
    low_cutoff: float
    high_cutoff: float
    band_edges: tuple[float, ...]
    bands: tuple[float, ...]
    axis_band_edges: tuple[float, ...]
    axis_bands: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ModeEnergy:
    """How the energy of a spectral layer's weights is spread over its modes.

    `sizes` are the numbers of modes along each axis; `axis_shares` has one row per axis, each of which sums
    to 1. Weights in several tensors stand one after the other along the first axis.
    """

    sizes: tuple[int, ...]
    axis_shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SketchNote:
    """How exact the percentiles and histograms are.

    `relative_error` bounds them for magnitudes that float32 holds normally; `underflow` and `overflow`
    count the finite elements below and above that range.
    """

    relative_error: float
    underflow: int
    overflow: int


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """The statistics of one tensor, merged over all batches.

    `shape` has the number of samples really run in front where the tensor has a sample axis.
    `values_of` is "x", or "|z|" where the tensor is complex and value statistics are of its magnitude.
    """

    item: str | None
    shape: tuple[int, ...]
    dtype: str
    spatial_axes: tuple[int, ...]
    values_of: str
    stats: FrozenMapping[Value]
    reasons: FrozenMapping[str] = field(default_factory=FrozenMapping)
    histogram: Histogram | None = None
    log_histogram: LogHistogram | None = None
    spectrum: Spectrum | None = None
    sketch: SketchNote | None = None


@dataclass(frozen=True, kw_only=True)
class ModuleRecord(TensorRecord):
    """The statistics of what one call of one module returned."""

    name: str
    call: int
    order: int
    parent: str | None
    class_name: str
    role: Role
    mode_energy: ModeEnergy | None = None

    @property
    def place(self) -> str:
        """The path, with the call and the output where there are several: "head@1[amp]"."""
        return place_name(self.name, self.call, self.item)


@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """The statistics of one place where a spectral and a local branch meet."""

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]
    stats: FrozenMapping[Value]
    reasons: FrozenMapping[str] = field(default_factory=FrozenMapping)

    @property
    def place(self) -> str:
        """The path, with the call where there are several: "fno_blocks@1"."""
        return place_name(self.name, self.call)


@dataclass(frozen=True, kw_only=True)
class CaptureRecord:
    """Everything that one capture found; the report's top-level keys are its attributes."""

    summary: FrozenMapping[Any]
    layers: FrozenMapping[tuple[float | None, ...]]
    modules: tuple[ModuleRecord, ...]
    blocks: tuple[BlockRecord, ...]
    input: TensorRecord | None
    output: TensorRecord | None
    outputs: tuple[TensorRecord, ...]
    quantities: tuple[Quantity, ...] = ()
    """What statistics of other packages say of their numbers."""
    not_fired: tuple[FrozenMapping[str], ...] = ()
    skipped: tuple[FrozenMapping[str], ...] = ()
    errors: tuple[FrozenMapping[str], ...] = ()
    warnings: tuple[str, ...] = ()
    findings: "tuple[Finding, ...] | None" = None
    """None where nobody looked; empty where nothing was found."""
    provenance: FrozenMapping[Any] = field(default_factory=FrozenMapping)
    schema: int = SCHEMA

    @property
    def step(self) -> int | None:
        """The training step of the weights, where it is known."""
        step = self.summary.get("checkpoint_step")
        return step if isinstance(step, int) else None

    @property
    def label(self) -> str:
        """What tells this record from others of its run: "step1000", "epoch3" or the checkpoint's name."""
        checkpoint = self.provenance.get("checkpoint") or {}
        return step_label(self.step, self.summary.get("step_kind"), checkpoint.get("name"))

    @property
    def spelled_step(self) -> str | None:
        """The step for people to read, "step 1000" or "epoch 3"; None where it is unknown."""
        return None if self.step is None else spell_step(self.step, self.summary.get("step_kind"))

    def module(self, name: str, call: int = 0, item: str | None = None) -> ModuleRecord:
        """Return the record of one call; KeyError names what there is when it was not recorded."""
        for record in self.modules:
            if (record.name, record.call, record.item) == (name, call, item):
                return record
        calls = [(record.call, record.item) for record in self.modules if record.name == name]
        raise KeyError(f"{name!r} call {call} item {item} (recorded (call, item) of that name: {calls})")
