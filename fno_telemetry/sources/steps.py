"""The training step of a checkpoint, by the keys and names that training programs write."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from torch import Tensor

from fno_telemetry.records import StepKind

_STEPS = (
    "global_step",
    "step",
    "iteration",
    "iter",
    "iter_num",
    "global_steps",
    "meta.iter",
    "timestamp.batch",
    "timestamp.Timestamp.batch",
    "trainer_state.global_step",
    "train_state.step",
)
_EPOCHS = ("epoch", "meta.epoch", "timestamp.epoch", "timestamp.Timestamp.epoch", "trainer_state.epoch")
"""Keys in the order of trust; dots lead into mappings."""

_KEYS = {key for path in (*_STEPS, *_EPOCHS) for key in path.split(".")}

Entries = Mapping[object, object] | Mapping[str, object]

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_STEP_NAMES = tuple(
    re.compile(rf"{_START}{word}[=_-]?([0-9]{{1,18}}){_END}", re.IGNORECASE)
    for word in ("step", "iter(?:ation)?")
)
# The number of a save; two numbers in a row are not one of those.
_SAVE_NAMES = tuple(
    re.compile(rf"{_START}{word}[=_-]([0-9]{{1,18}})(?![A-Za-z0-9]|[=_.-][0-9])", re.IGNORECASE)
    for word in ("checkpoint", "ckpt")
)
_EPOCH_NAME = re.compile(rf"{_START}epoch[=_-]?([0-9]{{1,18}}){_END}", re.IGNORECASE)
_PHYSICSNEMO_NAME = re.compile(r".+\.[0-9]+\.([0-9]{1,18})\.mdlus")  # name, part of the model, epoch


def find_step(entries: Sequence[Entries], name: str) -> tuple[int, StepKind] | tuple[None, None]:
    """Return the step and its kind: from keys, else from the name of the file or folder, else the epoch.

    Of several mappings the first that has a key counts. A number after `checkpoint` or `ckpt` that is the
    epoch of the file is no step.
    """
    if (step := _first(entries, _STEPS)) is not None:
        return step, "step"
    for pattern in _STEP_NAMES:
        if written := pattern.findall(name):
            return int(written[-1]), "step"
    epoch = _first(entries, _EPOCHS)
    for pattern in _SAVE_NAMES:
        if (written := pattern.findall(name)) and int(written[-1]) != epoch:
            return int(written[-1]), "step"
    if epoch is not None:
        return epoch, "epoch"
    if written := _EPOCH_NAME.findall(name) or _PHYSICSNEMO_NAME.findall(name):
        return int(written[-1]), "epoch"
    return None, None


def is_step_key(key: str) -> bool:
    """Return whether a key can lead to a step or an epoch."""
    return key in _KEYS


def _first(entries: Sequence[Entries], paths: Sequence[str]) -> int | None:
    """Return the first count that one of these paths leads to."""
    return next((count for path in paths for count in _counts(entries, path)), None)


def _counts(entries: Sequence[Entries], path: str) -> Iterator[int]:
    for held in entries:
        value: Any = held
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
            value = value.item()
        if _is_count(value):
            yield int(value)


def _is_count(value: object) -> TypeGuard[float]:
    """Return whether a value is a whole number, and not so large that it counts nothing."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < 10**18 and value == value // 1
