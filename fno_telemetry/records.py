"""The records of a capture: frozen plain data without torch, the same for every sink and reader.

`None` means undefined; `reasons` then has the reason under the same name.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from fno_telemetry import record_text
from fno_telemetry.errors import NameNotFound, OptionError
from fno_telemetry.quantities import Quantity, look_up
from fno_telemetry.wording import find_near_names, hint_at_names, join_names

if TYPE_CHECKING:
    from fno_telemetry.findings import Finding
    from fno_telemetry.pictures.picture import Pictures

SCHEMA = 1
"""The version of the report format that this version of the package writes."""

Role = Literal["lifting", "spectral", "local", "block", "activation", "norm", "projection", "other"]
"""The role of a module in its network."""

StepKind = Literal["step", "epoch"]
"""The unit in which the number of a checkpoint counts."""

STAGES = ("train", "val")
"""The stages of a training loop whose records are series of their own."""

IN_VALIDATION = "in validation"
"""What readable texts add to the step of a validation."""

ROOT = "(model)"
"""The name of the model itself, whose path is empty, in readable texts."""

Value = int | float | None
"""The value of one statistic: counts are integers; None means undefined, never zero."""

LEAST_RATIO = 1 / 2
"""The output has lost a band in which it has less than this share of the target's energy."""

LEAST_SHARE = 0.01
"""A band can be missed in which the target has this share of its energy around the means."""

OCTAVES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Frequencies in cycles per grid point, each but the first twice the one before."""

_NAMES_SHOWN = 5

V = TypeVar("V", covariant=True)
D = TypeVar("D")
_Placed = TypeVar("_Placed", "ModuleRecord", "BlockRecord")


class FrozenMapping(Mapping[str, V]):
    """A read-only mapping that equals any mapping with the same items and can be pickled.

    A key that is not there is a NameNotFound, which is a KeyError, with the keys that are most like it.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> V:
        try:
            return self._items[key]
        except KeyError:
            raise NameNotFound(f"no {key!r} here. {hint_at_names(str(key), self._items)}") from None

    # Those of Mapping would make the text of the error each time that a key is missing.
    @overload
    def get(self, key: str, /) -> V | None: ...

    @overload
    def get(self, key: str, /, default: D) -> V | D: ...

    def get(self, key: str, /, default: D | None = None) -> V | D | None:
        """Return the value of a key, or the default."""
        return self._items.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"FrozenMapping({self._items!r})"


def place_name(name: str, call: int, item: str | None = None) -> str:
    """Return a path with its call, unless it is the first, and its output, if it has a name.

    The model itself, whose path is empty, has the name "(model)".
    """
    return (name or ROOT) + (f"@{call}" if call else "") + ("" if item is None else f"[{item}]")


def spell_place(place: str) -> str:
    """Return a place in words where it is more than a path that the user wrote.

    "fno_blocks#gelu@1" is "the 2nd gelu of fno_blocks", "fno#1" is "block 1 of fno", and "lift@1" is
    "lift (2nd call)". An output's name stays: "head[amp]".
    """
    path, bracket, item = place.partition("[")
    path, _, call = path.partition("@")
    owner, mark, function = path.partition("#")
    owner = owner if owner not in ("", ROOT) else "the model"
    number = int(call) if call.isdecimal() else 0
    if mark and function.isdecimal():
        words = f"block {function} of {owner}"
    elif mark:
        return f"the {f'{_ordinal(number + 1)} ' if number else ''}{function} of {owner}{bracket}{item}"
    else:
        words = path
    return f"{words}{f' ({_ordinal(number + 1)} call)' if number else ''}{bracket}{item}"


def _ordinal(number: int) -> str:
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def step_label(step: int | None, step_kind: StepKind | None, checkpoint: str | None) -> str:
    """Return "step1000" or "epoch3" if the step is known, else the checkpoint's name, else "untrained"."""
    if step is not None:
        return f"{step_kind or 'step'}{step}"
    return checkpoint or "untrained"


def spell_step(step: int, step_kind: str | None) -> str:
    """Return "step 1000" or "epoch 3", as readable text."""
    return f"{step_kind or 'step'} {step}"


def freeze(value: Any) -> Any:
    """Return `value` with lists as tuples and dicts as read-only mappings, at any depth."""
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return freeze_mapping(value) if isinstance(value, Mapping) else value


def freeze_mapping(items: Mapping[str, Any]) -> "FrozenMapping[Any]":
    """Return `freeze(items)` for a mapping."""
    return FrozenMapping({key: freeze(item) for key, item in items.items()})


def require_records(function: str, given: Iterable[object]) -> None:
    """Raise OptionError, which names the function, if one of its arguments is no record."""
    for each in given:
        if not isinstance(each, CaptureRecord):
            unpack = ", each as an argument of its own" if isinstance(each, list | tuple) else ""
            raise OptionError(
                f"`{function}` was given a {type(each).__name__}; expected records, as from ft.capture or "
                f"ft.load_report{unpack}"
            )


@dataclass(frozen=True)
class Histogram:
    """Counts of signed values; bin i holds edges[i] <= x < edges[i + 1] to within the sketch's error."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True)
class LogHistogram:
    """Counts over log10 |x| on the same edges in every record; exact zeros are counted separately."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int
    zeros: int


@dataclass(frozen=True)
class Spectrum:
    """Shares of energy over frequency, without the mean of each field; frequencies in cycles per grid point.

    `bands` are radial: bin i holds band_edges[i] < |f| <= band_edges[i + 1]. `axis_bands` has one row per
    spatial axis over |f| along that axis, where the first bin includes zero. Each row sums to 1. With a light
    budget, only a `share` of the fields is transformed, which adds a standard error of at most `share_error`
    to shares of energy.
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
    share: float = 1.0
    share_error: float = 0.0


@dataclass(frozen=True)
class BandAccuracy:
    """How an output and its target compare by frequency, in cycles per grid point.

    The first entry of each tuple is that of the mean of each field. Entry i is that of a radial band,
    band_edges[i - 1] < |f| <= band_edges[i]. `target`, `output` and `error` (output - target) are energies,
    summed over samples, channels and points; those of the error sum to the squared error. The others are
    ratios, None in bands without energy. `sizes` are the largest along each spatial axis.
    """

    sizes: tuple[int, ...]
    band_edges: tuple[float, ...]
    target: tuple[float, ...]
    output: tuple[float, ...]
    error: tuple[float, ...]
    band_error: tuple[float | None, ...]
    spectrum_ratio: tuple[float | None, ...]
    band_coherence: tuple[float | None, ...]

    @property
    def missing(self) -> tuple[int, ...]:
        """The radial bands that the output misses, counted from 0.

        The target has at least LEAST_SHARE of its energy around the means in each, and the output less than
        LEAST_RATIO of that.
        """
        least = LEAST_SHARE * math.fsum(self.target[1:])
        pairs = enumerate(zip(self.target[1:], self.spectrum_ratio[1:], strict=True))
        return tuple(
            band
            for band, (energy, ratio) in pairs
            if ratio is not None and energy >= least and ratio < LEAST_RATIO
        )

    def pool(self, edges: Sequence[float] = OCTAVES) -> "BandAccuracy":
        """Return the same of wider bands, which end at these edges and at the last one."""
        ends = []
        rows: list[tuple[float | None, ...]] = []
        for above, below in pairwise((-1.0, *edges, self.band_edges[-1])):
            members = [index for index, edge in enumerate(self.band_edges) if above < edge <= below]
            if not members:
                continue
            ends.append(below)
            y, z, e = (
                math.fsum(row[index] for index in members) for row in (self.target, self.output, self.error)
            )
            has_target = y > 0 and any(self.spectrum_ratio[index] is not None for index in members)
            has_both = z > 0 and any(self.band_coherence[index] is not None for index in members)
            coherence = None
            if has_target and has_both:
                # The energy of the error is y + z less twice the product of output and target.
                coherence = max(-1.0, min((y + z - e) / (2 * math.sqrt(y) * math.sqrt(z)), 1.0))
            ratios = (math.sqrt(e / y), z / y) if has_target else (None, None)
            rows.append((y, z, e, *ratios, coherence))
        return BandAccuracy(self.sizes, tuple(ends), *zip(*rows, strict=True))


@dataclass(frozen=True)
class ModeEnergy:
    """The distribution of the energy of a spectral layer's weights over its modes.

    `sizes` are the numbers of modes along each axis; `axis_shares` has one row per axis that sums to 1.
    Several weight tensors are concatenated along the first axis.
    """

    sizes: tuple[int, ...]
    axis_shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SketchNote:
    """The accuracy of the percentiles and histograms.

    `relative_error` is a bound for magnitudes that are normal in float32; `underflow` and `overflow` count
    the finite elements below and above that range. With a light budget they are taken of a `share` of the
    elements, and a percentile is that of another rank, by at most `rank_error` in 95 of 100 cases.
    """

    relative_error: float
    underflow: int
    overflow: int
    share: float = 1.0
    rank_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """The statistics of one tensor, merged over all batches.

    `shape` starts with the number of samples that were run if the tensor has a sample axis. `values_of` is
    "x", or "|z|" for a complex tensor, whose value statistics are those of its magnitude. `channel_rms` has
    the rms of each channel of an input, output or target of the model, None for a channel without finite
    elements; it is None for all other tensors, without a channel axis, and for more than 512 channels.
    `process_extremes` has the smallest and the largest element in each process of a record over several, by
    rank, None where it had no finite element; it is None for a record of one process.
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
    channel_rms: tuple[Value, ...] | None = None
    process_extremes: tuple[tuple[Value, Value], ...] | None = None

    def __repr__(self) -> str:
        return record_text.describe_tensor(self)


@dataclass(frozen=True, kw_only=True)
class ModuleRecord(TensorRecord):
    """The statistics of an output of one call of one module."""

    name: str
    call: int
    order: int
    parent: str | None
    class_name: str
    role: Role
    mode_energy: ModeEnergy | None = None

    @property
    def place(self) -> str:
        """The path, with the call and the output if there are several: "head@1[amp]"."""
        return place_name(self.name, self.call, self.item)

    def __repr__(self) -> str:
        return record_text.describe_module(self)


@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """The statistics of a block: a place where a spectral and a local branch are added."""

    name: str
    call: int
    spectral: tuple[str, ...]
    local: tuple[str, ...]
    stats: FrozenMapping[Value]
    reasons: FrozenMapping[str] = field(default_factory=FrozenMapping)

    @property
    def place(self) -> str:
        """The path, with the call if there are several: "fno_blocks@1"."""
        return place_name(self.name, self.call)

    def __repr__(self) -> str:
        return record_text.describe_block(self)


@dataclass(frozen=True)
class ValueSample:
    """Extremes and root mean square of at most 4,096 values of a parameter, always the same ones.

    Real and imaginary parts count as values of their own, so that `number` is twice that of complex ones.
    """

    number: int
    min: float
    max: float
    rms: float


@dataclass(frozen=True, kw_only=True)
class ParameterRecord:
    """The statistics of one parameter; `name` is its canonical path.

    `digest` tells whether it changed between two captures, and `sample` whether it has the values that it
    starts with; both are None in a training run, which has `moved`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stats: FrozenMapping[Value]
    reasons: FrozenMapping[str] = field(default_factory=FrozenMapping)
    digest: str | None = None
    sample: ValueSample | None = None

    def is_same_as(self, other: "ParameterRecord") -> bool | None:
        """Return whether both have the same values; None where a digest is not known."""
        if self.digest is None or other.digest is None or self.shape != other.shape:
            return None
        return self.digest == other.digest

    def __repr__(self) -> str:
        return record_text.describe_parameter(self)


@dataclass(frozen=True)
class OrderCoherence:
    """The coherence of the input, and of the output, with the target when its spatial axes are in this order.

    Spatial axis i is then `axes[i]` as captured, read backwards if `flipped[i]`; both count spatial axes.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]
    input: float | None
    output: float | None

    def __str__(self) -> str:
        swapped = "" if self.axes == tuple(range(len(self.axes))) else "swapped axes"
        if swapped and len(self.axes) > 2:
            swapped = f"axes in the order {', '.join(map(str, self.axes))}"
        axes = [str(axis) for axis, is_flipped in enumerate(self.flipped) if is_flipped]
        flipped = f"a flip along spatial axis {' and '.join(axes)}" if axes else ""
        return " and ".join(filter(None, (swapped, flipped))) or "the axes as given"


@dataclass(frozen=True, kw_only=True)
class AccuracyRecord:
    """How the output of the model compares with the target.

    `channels` is `output_to_target_rms` of each channel; None for one whose target is zero. `reasons` also
    has "bands" and "channels" where these are None, and the names of ratios that some bands do not have.
    `orders` has, of all flips and swaps of the spatial axes, those in which input or output cohere most.
    """

    stats: FrozenMapping[Value]
    reasons: FrozenMapping[str] = field(default_factory=FrozenMapping)
    bands: BandAccuracy | None = None
    channels: tuple[Value, ...] | None = None
    orders: tuple[OrderCoherence, ...] | None = None

    def __repr__(self) -> str:
        return record_text.describe_accuracy(self)


@dataclass(frozen=True, kw_only=True)
class ResolutionRecord:
    """How a capture of fields at another resolution differs from that of the same fields as they were.

    `factor` is that of the resolution, `sizes` and `of_sizes` are the points of the fields along each axis,
    as captured here and before. `of_digest` is the input digest of the capture before, `of_report` the name
    of its report, where there is one. `differences` are those of the model's first output, in bands of
    frequency that both grids have: ‖here - before‖ / ‖before‖, the first that of the means, entry i that of
    band_edges[i - 1] < |f| <= band_edges[i] in cycles per grid point of the coarser grid; None without
    energy.
    """

    factor: float
    sizes: tuple[int, ...]
    of_sizes: tuple[int, ...]
    of_digest: str | None
    of_report: str | None = None
    band_edges: tuple[float, ...] = ()
    differences: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaptureRecord:
    """All results of one capture; the top-level keys of the report are its attributes."""

    summary: FrozenMapping[Any]
    layers: FrozenMapping[tuple[float | None, ...]]
    modules: tuple[ModuleRecord, ...]
    blocks: tuple[BlockRecord, ...]
    input: TensorRecord | None
    output: TensorRecord | None
    outputs: tuple[TensorRecord, ...]
    inputs: tuple[TensorRecord, ...] = ()
    """All tensors of a batch, `input` the first of them; empty in reports of versions that kept only that."""
    parameters: tuple[ParameterRecord, ...] = ()
    """The parameters of a model that was watched in training."""
    target: TensorRecord | None = None
    """The target, as it was compared with the output; None where none is known."""
    accuracy: AccuracyRecord | None = None
    """None where no target is known."""
    resolution: ResolutionRecord | None = None
    """Only of a capture of the same fields at another resolution."""
    training: FrozenMapping[Any] = field(default_factory=FrozenMapping)
    """What only a training loop knows of a step; empty in a capture."""
    quantities: tuple[Quantity, ...] = ()
    """The descriptions of numbers that statistics of other packages give."""
    not_fired: tuple[FrozenMapping[str], ...] = ()
    skipped: tuple[FrozenMapping[str], ...] = ()
    errors: tuple[FrozenMapping[str], ...] = ()
    warnings: tuple[str, ...] = ()
    findings: "tuple[Finding, ...] | None" = None
    """None without a diagnosis; empty if it found nothing."""
    provenance: FrozenMapping[Any] = field(default_factory=FrozenMapping)
    schema: int = SCHEMA

    @property
    def step(self) -> int | None:
        """The training step of the weights; None if unknown."""
        step = self.summary.get("checkpoint_step")
        return step if type(step) is int else None

    @property
    def stage(self) -> str | None:
        """The stage of the training loop, "train" or "val"; None for a capture."""
        stage = self.training.get("stage")
        return stage if isinstance(stage, str) else None

    @property
    def label(self) -> str:
        """The label of this record within its run: "step1000", "epoch3" or the checkpoint's name.

        That of a validation during training is "step1000.val".
        """
        name = self.facts_about("checkpoint").get("name")
        label = step_label(self.step, self.summary.get("step_kind"), None if name is None else str(name))
        return f"{label}.val" if self.stage == "val" else label

    @property
    def spelled_step(self) -> str | None:
        """The step as readable text, "step 1000" or "epoch 3"; None if it is unknown.

        That of a validation during training is "step 1000 in validation".
        """
        if self.step is None:
            return None
        step = spell_step(self.step, self.summary.get("step_kind"))
        return f"{step} {IN_VALIDATION}" if self.stage == "val" else step

    @property
    def input_digest(self) -> str | None:
        """The digest of the samples that were captured; None if it is unknown."""
        digest = self.facts_about("input").get("digest")
        return digest if isinstance(digest, str) else None

    def facts_about(self, what: str) -> Mapping[str, Any]:
        """Return what the provenance has about "input" or "checkpoint"; empty where that is no mapping."""
        # Whoever captures may put anything into the provenance.
        facts = self.provenance.get(what)
        return facts if isinstance(facts, Mapping) else {}

    def module(self, name: str, call: int = 0, item: str | None = None) -> ModuleRecord:
        """Return the record of one call of a module, or of one output of that call.

        `name` may also be the place as tables and findings spell it: "fno_blocks@1", "head[amp]". KeyError
        names what is recorded of this module, or the nearest places.
        """
        for module in self.modules:
            if (module.name, module.call, module.item) == (name, call, item):
                return module
        return self._find(self.modules, "module", name, place_name(name, call, item))

    def block(self, name: str, call: int = 0) -> BlockRecord:
        """Return the record of one call of a block.

        `name` may also be the place as tables and findings spell it: "fno_blocks@1". KeyError names what is
        recorded of this block, or the nearest places.
        """
        for block in self.blocks:
            if (block.name, block.call) == (name, call):
                return block
        return self._find(self.blocks, "block", name, place_name(name, call))

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dict per output of a module call, in execution order, all with the same keys.

        So `pandas.DataFrame(record.rows())` is a table of the capture. `name`, `call`, `item`, `role`,
        `class`, `shape` (a tuple), `dtype` and `step` come first, then every statistic of any module. What is
        undefined, or is not a number of that module, is None. A statistic of another package that is called
        like one of the first keys is under `stats.<name>`.
        """
        statistics = look_up((name for m in self.modules for name in m.stats), self.quantities)
        rows = []
        for module in sorted(self.modules, key=lambda module: module.order):
            row: dict[str, Any] = {
                "name": module.name,
                "call": module.call,
                "item": module.item,
                "role": module.role,
                "class": module.class_name,
                "shape": module.shape,
                "dtype": module.dtype,
                "step": self.step,
            }
            numbers = {
                name if name not in row else f"stats.{name}": module.stats.get(name) for name in statistics
            }
            rows.append(row | numbers)
        return rows

    def plot(self) -> "Pictures":
        """Return the pictures of this record; the extra `plots` has what they need.

        A notebook shows them; `record.plot()["sizes"]` is one, whose `figure()` is a figure of matplotlib and
        whose `save("sizes.svg")` writes a file. MissingExtra where matplotlib is not installed.
        """
        # By name, as plug-ins are: pictures are made of records, which know nothing of them.
        pictures: Pictures = import_module("fno_telemetry.pictures").pictures_of(self)
        return pictures

    def __repr__(self) -> str:
        return record_text.describe_capture(self)

    def _repr_html_(self) -> str:
        return str(import_module("fno_telemetry.page").describe_for_notebook(self))

    def _find(self, records: Sequence[_Placed], kind: str, name: str, place: str) -> _Placed:
        """Return the record at a place; NameNotFound names what there is instead."""
        places = {record.place: record for record in records}
        if place in (name, ROOT) and place in places:
            return places[place]
        of_name = [record.place for record in records if record.name == name]
        unmeasured = {
            entry["name"]: entry["reason"] for entry in (*self.not_fired, *self.skipped, *self.errors)
        }
        if of_name:
            hint = f"recorded of this {kind}: {_some(of_name)}"
        elif place in unmeasured:
            hint = f"it was not measured: {unmeasured[place]}"
        elif place in ("input", "output", "target"):
            hint = f"the {place} of the model is `record.{place}`"
        elif not places:
            hint = f"it has no {kind}s"
        else:
            hint = f"similar: {', '.join(find_near_names(place, places, least_likeness=0))}"
        raise NameNotFound(f"no {kind} {place!r} in this record; {hint}")


def _some(names: Sequence[str]) -> str:
    return join_names(names, _NAMES_SHOWN)
