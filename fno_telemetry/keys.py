"""The key of a number in every sink: `<statistic>/<place>`, with slashes where the path has dots.

Dashboards group by the text before the first slash, so one group holds all layers of a statistic.

    abs_p95/fno_blocks/0/spectral      the only, or the first, call of a module
    abs_p95/fno_blocks@1               its second call
    abs_p95/head[0], abs_p95/head[amp] one of several outputs
    gelu_share/fno_blocks#gelu         an activation function, which is no module, keeps its `#`
    abs_p95/input, abs_p95/output      the input of the model and its first output
    abs_p95/input[0], abs_p95/output[1]  one of several inputs or outputs of the model
    abs_p95/target                     the target, where one is known
    abs_p95/output@0                   a module whose name is `output`
    gain/(model)                       the model itself, whose path is empty
    moved/lifter/weight                a parameter, in a training run
    relative_l2/accuracy               the output compared with the target
    band_error/accuracy[band04]        in the fourth radial band; band00 is that of the means
    output_to_target_rms/accuracy[channel1]  in one of several channels
    val/rms/lifter                     any of these, of a validation during training

Different places never share a key: a character with a meaning above is written as %XX in a name, and so is
each byte of one that nobody sees, such as a control character or a direction mark.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal, TypeGuard

from fno_telemetry.records import (
    ROOT,
    AccuracyRecord,
    BlockRecord,
    CaptureRecord,
    ModuleRecord,
    Role,
    TensorRecord,
    Value,
)
from fno_telemetry.wording import is_printable

ACCURACY = "accuracy"
"""The place of the numbers that compare the output with the target."""

VALIDATION = "val"
"""The stage of a record of a validation, and what its keys begin with."""

ROLES: tuple[Role, ...] = ("lifting", "spectral", "local", "block", "projection")
"""The roles of what is shown first of a network."""

_SIDES = frozenset({"input", "output", "target", ACCURACY})
Side = Literal["input", "output", "target"]
"""What of a whole model is measured, beside its modules."""

_RESERVED = frozenset("%/@()[]")  # characters with a meaning in keys


def key(statistic: str, name: str, call: int = 0, item: str | None = None) -> str:
    """Return the key of one statistic of one call of a module or block, or of one of its outputs."""
    return at(statistic, place(name, call, item))


def record_key(statistic: str, record: ModuleRecord | BlockRecord) -> str:
    """Return the key of one statistic of this record."""
    return at(statistic, record_place(record))


def model_key(statistic: str, side: Side, item: str | None = None) -> str:
    """Return the key of one statistic of an input or output of the model, or of its target."""
    return at(statistic, model_place(side, item))


def at(statistic: str, place: str) -> str:
    """Return the key of one statistic at a place, as returned by the functions below."""
    # A statistic of this name would have the keys of a validation.
    name = "%76al" if statistic == VALIDATION else _escape(statistic)
    return f"{name}/{place}"


def of_stage(key: str, record: CaptureRecord) -> str:
    """Return the key that this one is in a record: `val/<key>` in that of a validation, else itself."""
    return f"{VALIDATION}/{key}" if record.stage == VALIDATION else key


def place(name: str, call: int = 0, item: str | None = None) -> str:
    """Return the part of a key after the statistic: the path with slashes, the call and the output."""
    # A module named "input" or "output" always has its call in the key, unlike those of the model.
    suffix = f"@{call}" if call or name in _SIDES else ""
    return (_spell(name) or ROOT) + suffix + _bracket(item)


def record_place(record: ModuleRecord | BlockRecord) -> str:
    """Return the `place` of a record."""
    return place(record.name, record.call, record.item if isinstance(record, ModuleRecord) else None)


def model_place(side: Side, item: str | None = None) -> str:
    """Return the `place` of an input or output of the model, or of its target."""
    return side + _bracket(item)


def numbers(record: CaptureRecord) -> Iterator[tuple[str, int | float]]:
    """Yield the key and value of every defined statistic, in a training those of parameters and accuracy."""
    for place, stats in stats_by_place(record):
        for statistic, value in stats.items():
            if is_defined(value):
                yield of_stage(at(statistic, place), record), value


def stats_by_place(record: CaptureRecord) -> Iterator[tuple[str, Mapping[str, Value]]]:
    """Yield every place with its statistics: tensors, blocks, parameters and accuracy."""
    for where, entry in tensors_by_place(record):
        yield where, entry.stats
    for block in record.blocks:
        yield record_place(block), block.stats
    for parameter in record.parameters:
        yield place(parameter.name), parameter.stats
    if record.accuracy is not None:
        yield ACCURACY, record.accuracy.stats
        yield from _parts_of(record.accuracy)


def tensors_by_place(record: CaptureRecord) -> Iterator[tuple[str, TensorRecord]]:
    """Yield every tensor with its place: inputs, the modules as they finished, outputs, target."""
    if record.input is not None:
        yield model_place("input"), record.input
    for entered in record.inputs:
        if entered.item is not None:
            yield model_place("input", entered.item), entered
    for module in modules_in_order(record):
        yield record_place(module), module
    if record.output is not None:
        yield model_place("output"), record.output
    for output in record.outputs:
        # A single output without a name of its own is the output.
        if output.item is not None:
            yield model_place("output", output.item), output
    if record.target is not None:
        yield model_place("target"), record.target


def modules_in_order(record: CaptureRecord) -> list[ModuleRecord]:
    """Return the module records in the order in which the modules finished."""
    return sorted(record.modules, key=lambda module: module.order)


def layers_in_order(record: CaptureRecord) -> list[ModuleRecord]:
    """Return the modules with one of ROLES in order; without any, those of role "other", else all."""
    modules = modules_in_order(record)
    with_role = [module for module in modules if module.role in ROLES]
    return with_role or [module for module in modules if module.role == "other"] or modules


def _parts_of(accuracy: AccuracyRecord) -> Iterator[tuple[str, Mapping[str, Value]]]:
    """Yield the place of every band and channel with its statistics."""
    if (bands := accuracy.bands) is not None:
        names = ("band_error", "spectrum_ratio", "band_coherence")
        for index, values in enumerate(zip(*(getattr(bands, name) for name in names), strict=True)):
            yield f"{ACCURACY}[band{index:02d}]", dict(zip(names, values, strict=True))
    for index, ratio in enumerate(accuracy.channels or ()):
        yield f"{ACCURACY}[channel{index}]", {"output_to_target_rms": ratio}


def is_defined(value: Value) -> TypeGuard[int | float]:
    """Return whether a value can be shown: it is neither None nor NaN nor infinite."""
    return value is not None and math.isfinite(value)


def _bracket(item: str | None) -> str:
    return "" if item is None else f"[{_spell(item)}]"


def _spell(path: str) -> str:
    return _escape(path).replace(".", "/")


def _escape(text: str) -> str:
    if is_printable(text) and _RESERVED.isdisjoint(text):
        return text
    return "".join(
        letter if is_printable(letter) and letter not in _RESERVED else _percent(letter) for letter in text
    )


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
