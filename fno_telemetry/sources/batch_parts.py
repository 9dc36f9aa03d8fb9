"""The parts of a batch: which of them go into the model, and which one is the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.sources.loaders import describe_value
from fno_telemetry.tracing.nested_tensors import list_parts, tensors_in

Part = int | str
"""A part of a batch: a position, a key, or the name of a field; `1.mask` is `mask` of the part at 1."""

Selection = Part | Sequence[Part] | None
"""Parts of a batch; None if nothing was chosen."""


@dataclass(frozen=True)
class BatchParts:
    """What of each batch goes into the model, and what is the target.

    Without `inputs` that is the whole batch, of a tuple, list or dict without its target.
    """

    inputs: tuple[Part, ...] | None = None
    target: Part | None = None

    @classmethod
    def choose(cls, inputs: Selection, target: Part | None) -> "BatchParts":
        """Return the parts that a user named; OptionError for what names none."""
        if target is not None and not _is_part(target):
            raise OptionError(f"`target` is {target!r}; expected a position or a key of a batch, such as 1")
        if inputs is None:
            return cls(None, target)
        listed = (inputs,) if isinstance(inputs, int | str) else inputs
        if not isinstance(listed, list | tuple) or not listed or not all(map(_is_part, listed)):
            raise OptionError(
                f"`inputs` is {inputs!r}; expected a position or key of a batch, such as 0, or a list of them"
            )
        return cls(tuple(listed), target)

    @property
    def are_chosen(self) -> bool:
        """Whether a batch is not simply given to the model."""
        return self.inputs is not None or self.target is not None

    def select_inputs(self, batch: Any) -> tuple[tuple[Part, Any], ...] | Any:
        """Return what goes into the model: parts with their names, or a batch that is taken as it is.

        NumPy arrays become tensors. InputError, one line, for a part that the batch does not have.
        """
        if self.inputs is not None:
            return tuple((part, _as_tensor(find_part(batch, part, "inputs"))) for part in self.inputs)
        if self.target is None:
            return batch
        return self._without_target(batch)

    def select_target(self, batch: Any) -> torch.Tensor:
        """Return the target of a batch; InputError, one line, where it is not one tensor."""
        if self.target is None:
            raise OptionError("no target was chosen")
        found = _as_tensor(find_part(batch, self.target, "target"))
        tensors = list(tensors_in(found))
        if len(tensors) != 1:
            raise InputError(
                f"the target, part {self.target!r} of a batch, is {describe_value(found)}; expected one "
                f"tensor. {describe_parts(batch)}"
            )
        return tensors[0]

    def _without_target(self, batch: Any) -> Any:
        name = _find_name(batch, self.target)
        if isinstance(batch, tuple | list) and name is not None:
            left = tuple(_as_tensor(part) for index, part in enumerate(batch) if index != name)
            return left[0] if len(left) == 1 and isinstance(left[0], torch.Tensor) else left
        if isinstance(batch, dict) and name is not None:
            return {key: _as_tensor(part) for key, part in batch.items() if key != name}
        if isinstance(batch, tuple | list | dict):
            find_part(batch, self.target, "target")
            raise InputError(
                f"the target {self.target!r} is inside a part of the batch, so `inputs` must say what goes "
                f"into the model. {describe_parts(batch)}"
            )
        return batch


def find_part(batch: Any, part: Part | None, option: str) -> Any:
    """Return the named part of a batch; InputError, which names the option, where there is none."""
    name = _find_name(batch, part)
    if name is not None:
        return _look_up(batch, name)
    outer, dot, inner = str(part).partition(".")
    if dot and _find_name(batch, outer) is not None:
        return find_part(_look_up(batch, _find_name(batch, outer)), inner, option)
    raise InputError(f"`{option}`: a batch has no part {part!r}. {describe_parts(batch)}")


def describe_parts(batch: Any) -> str:
    """Return a sentence: `A batch, of type list, holds 0: (4, 1, 8, 8) float32, 1: (4,) int64.`."""
    parts = [f"{name}: {describe_value(part)}" for name, part in list_parts(batch)]
    if isinstance(batch, torch.Tensor) or not parts:
        return f"A batch is one {type(batch).__name__}: {describe_value(batch)}."
    return f"A batch, of type {type(batch).__name__}, holds {', '.join(parts)}."


def _find_name(batch: Any, part: Part | None) -> Any:
    """Return the position, key or attribute that a part is; None if the batch has no such part."""
    if isinstance(batch, torch.Tensor | np.ndarray):
        return None
    if isinstance(batch, Mapping):
        return next((key for key in batch if key == part or str(key) == str(part)), None)
    if isinstance(batch, tuple | list):
        fields = getattr(batch, "_fields", ())
        if part in fields:
            return fields.index(part)
        position = _as_position(part)
        inside = position is not None and -len(batch) <= position < len(batch)
        return position % len(batch) if inside and position is not None else None
    return part if isinstance(part, str) and hasattr(batch, part) else None


def _look_up(batch: Any, name: Any) -> Any:
    return batch[name] if isinstance(batch, Mapping | tuple | list) else getattr(batch, name)


def _as_position(part: Part | None) -> int | None:
    try:
        return int(part)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _is_part(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _as_tensor(value: Any) -> Any:
    """Return a NumPy array of numbers as a tensor, anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(value))
    return value
