"""The parts of a batch: which of them go into the model, and which one is the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.sources.batch_words import describe_parts, describe_value, list_fields
from fno_telemetry.tracing.nested_tensors import tensors_in

Part = int | str
"""A part of a batch: a position, a key, or the name of a field; `1.mask` is `mask` of the part at 1."""

Selection = Part | Sequence[Part] | None
"""Parts of a batch; None if nothing was chosen."""


@dataclass(frozen=True)
class BatchParts:
    """What of each batch goes into the model, and what is the target.

    Without `inputs` that is the whole batch, of a tuple, list or dict without the target. Of several targets
    a function makes one, so that here they are only known not to go into the model.
    """

    inputs: tuple[Part, ...] | None = None
    target: tuple[Part, ...] = ()

    @classmethod
    def choose(cls, inputs: Selection, target: Selection) -> "BatchParts":
        """Return the parts that a user named; OptionError for what names none."""
        chosen = None if inputs is None else _list_parts("inputs", inputs)
        return cls(chosen, () if target is None else _list_parts("target", target))

    @property
    def are_chosen(self) -> bool:
        """Whether a batch is not simply given to the model."""
        return self.inputs is not None or bool(self.target)

    def as_names(self) -> dict[str, tuple[str, ...]]:
        """Return the chosen parts by what they are, as a report has them."""
        named = {"inputs": self.inputs or (), "target": self.target}
        return {kind: tuple(map(str, parts)) for kind, parts in named.items() if parts}

    def check(self, batch: Any) -> None:
        """Raise InputError, one line, for the first chosen part that the batch does not have."""
        for option, parts in (("inputs", self.inputs or ()), ("target", self.target)):
            for part in parts:
                find_part(batch, part, option)

    def select_inputs(self, batch: Any) -> dict[str, Any] | Any:
        """Return what goes into the model: the chosen parts by name, or else the batch without its target.

        NumPy arrays become tensors. InputError, one line, for a part that the batch does not have.
        """
        if self.inputs is not None:
            return {str(part): find_part(batch, part, "inputs") for part in self.inputs}
        return self._leave_out_target(batch) if self.target else batch

    def select_target(self, batch: Any) -> torch.Tensor:
        """Return the target of a batch; InputError, one line, where it is not one tensor."""
        if len(self.target) > 1:
            names = ", ".join(map(str, self.target))
            raise OptionError(
                f"`target` has several parts, {names}; `prediction` is a function (output, batch) -> "
                "(prediction, target) that makes one target of them"
            )
        [part] = self.target
        found = find_part(batch, part, "target")
        tensors = list(tensors_in(found))
        if len(tensors) != 1:
            raise InputError(
                f"`target`: part {part!r} of a batch is {describe_value(found)}; one tensor was expected. "
                f"{describe_parts(batch)}"
            )
        return tensors[0]

    def _leave_out_target(self, batch: Any) -> Any:
        if not isinstance(batch, tuple | list | dict):
            return batch
        names = []
        for part in self.target:
            find_part(batch, part, "target")
            name = _find_name(batch, part)
            if name is None:
                raise InputError(
                    f"`target` {part!r} is inside a part of the batch, so say by `inputs` what goes into the "
                    f"model. {describe_parts(batch)}"
                )
            names.append(name)
        if isinstance(batch, dict):
            return {key: as_tensor(part) for key, part in batch.items() if key not in names}
        left = tuple(as_tensor(part) for index, part in enumerate(batch) if index not in names)
        return left[0] if len(left) == 1 and isinstance(left[0], torch.Tensor) else left


def find_part(batch: Any, part: Part, option: str) -> Any:
    """Return the named part of a batch; InputError, which names the option, where there is none."""
    name = _find_name(batch, part)
    if name is not None:
        return as_tensor(_look_up(batch, name))
    outer, dot, inner = str(part).partition(".")
    if dot and (name := _find_name(batch, outer)) is not None:
        return find_part(_look_up(batch, name), inner, option)
    if isinstance(batch, torch.Tensor | np.ndarray):
        raise InputError(
            f"`{option}` {part!r}: a batch is one tensor, {describe_value(batch)}, which has no parts. A "
            "list holds batches: one batch of several tensors is a tuple of them, or a dict"
        )
    raise InputError(f"`{option}` {part!r}: a batch has no such part. {describe_parts(batch)}")


def as_tensor(value: Any) -> Any:
    """Return a NumPy array of numbers as a tensor, anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(value))
    return value


def _list_parts(option: str, chosen: Any) -> tuple[Part, ...]:
    listed = (chosen,) if isinstance(chosen, int | str) else chosen
    is_list = isinstance(listed, list | tuple) and len(listed) > 0
    if not is_list or not all(isinstance(part, int | str) and not isinstance(part, bool) for part in listed):
        raise OptionError(
            f"`{option}` is {chosen!r}; expected a position or key of a batch, such as 0, or a list of them"
        )
    return tuple(listed)


def _find_name(batch: Any, part: Part) -> Any:
    """Return the position, key or attribute that a part is; None if the batch has no such part."""
    if isinstance(batch, torch.Tensor | np.ndarray):
        return None
    if isinstance(batch, tuple | list):
        fields = getattr(batch, "_fields", ())
        if part in fields:
            return fields.index(part)
        position = _as_position(part)
        inside = position is not None and -len(batch) <= position < len(batch)
        return position % len(batch) if inside and position is not None else None
    if isinstance(batch, Mapping):
        return next((key for key in batch if key == part or str(key) == str(part)), None)
    is_field = isinstance(part, str) and (part in list_fields(batch) or hasattr(batch, part))
    return part if is_field else None


def _look_up(batch: Any, name: Any) -> Any:
    if isinstance(batch, Mapping | tuple | list):
        return batch[name]
    fields = list_fields(batch)
    return fields[name] if name in fields else getattr(batch, name)


def _as_position(part: Part) -> int | None:
    try:
        return int(part)
    except ValueError:
        return None
