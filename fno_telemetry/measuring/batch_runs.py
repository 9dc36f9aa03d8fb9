"""How a model is run on a batch: on which parts, by position or by name, and what an error then says."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fno_telemetry.errors import InputError
from fno_telemetry.sources.batch_advice import list_arguments, spell_choice, suggest_choice
from fno_telemetry.sources.batch_parts import BatchParts
from fno_telemetry.sources.batch_words import BATCH_NOTE, CHOICE_NOTE, describe_call, describe_parts
from fno_telemetry.tracing.module_calls import unwrap

Forward = Callable[..., object]
"""Runs a batch instead of the model."""

_OTHER_FORWARD = (
    "fno-telemetry: `forward` runs a batch in another way, such as forward=lambda batch: model(batch[0])"
)


@dataclass(frozen=True)
class BatchRun:
    """Runs batches: first `select` what of a batch goes into the model, then `run` the model on that."""

    model: nn.Module
    parts: BatchParts
    forward: Forward | None = None
    is_recognised: bool = False
    """Whether the parts were not chosen but told by the names of what a batch holds."""

    def suit(self, batch: Any) -> "BatchRun":
        """Return how batches like this one are run: of x and y, `x` alone if the forward has no argument y.

        InputError, with a choice that would fit, if the batch does not have the chosen parts.
        """
        try:
            self.parts.check(batch)
        except InputError as error:
            found = suggest_choice(batch, unwrap(self.model).forward)
            fits = f" {spell_choice(*found)} would fit" if found is not None else ""
            raise InputError(f"{error}{fits}") from error
        if self.parts.are_chosen or self.forward is not None:
            return self
        if not isinstance(batch, dict) or batch.keys() != {"x", "y"} or "y" in self._arguments:
            return self
        return replace(self, parts=BatchParts(("x",), ("y",)), is_recognised=True)

    def select(self, batch: Any) -> Any:
        """Return what goes into the model: one part as it is, several by name, or a batch as a whole."""
        if self.parts.inputs is None and self.forward is not None:
            return batch
        chosen = self.parts.select_inputs(batch)
        return next(iter(chosen.values())) if self._takes_one else chosen

    def run(self, selected: Any, batch: Any) -> object:
        """Run the model on what was selected of a batch; an error gets notes of what that was."""
        if self.parts.inputs is None:
            if self.forward is not None:
                return self.forward(selected)
            args, keywords = _as_arguments(selected)
        else:
            args, keywords = self._name_arguments(selected)
        try:
            return (self.forward or self.model)(*args, **keywords)
        except (Exception, SystemExit) as error:
            if self.forward is None:
                advice = self._advise(batch) or _OTHER_FORWARD
                _add_notes(error, f"{BATCH_NOTE}{describe_call(args, keywords)}", advice)
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record says of how its batches were understood."""
        if not self.is_recognised:
            return ()
        return (
            "batches hold x and y, and the forward has no argument y: x goes into the model, and y is the "
            "target",
        )

    @property
    def _arguments(self) -> frozenset[str]:
        return list_arguments(self.forward or unwrap(self.model).forward)

    @property
    def _takes_one(self) -> bool:
        return self.parts.inputs is not None and len(self.parts.inputs) == 1

    def _name_arguments(self, selected: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the chosen parts as positional and keyword arguments of the forward."""
        parts = self.parts.inputs or ()
        values = [selected] if self._takes_one else [selected[str(part)] for part in parts]
        names = [str(part).rpartition(".")[2] for part in parts]
        known = self._arguments
        args = [value for name, value in zip(names, values, strict=True) if name not in known]
        keywords = {name: value for name, value in zip(names, values, strict=True) if name in known}
        return tuple(args), keywords

    def _advise(self, batch: Any) -> str | None:
        """Return a note on which choice of parts may fit; None where a batch has no parts to choose from."""
        found = suggest_choice(batch, unwrap(self.model).forward)
        if found is None or found == (list(self.parts.inputs or ()), *self.parts.target):
            return f"{CHOICE_NOTE}{describe_parts(batch)}" if self.parts.are_chosen else None
        inputs, target = found
        given = "part" if len(inputs) == 1 else "parts"
        named = " and ".join(map(repr, inputs))
        return (
            f"{CHOICE_NOTE}{spell_choice(inputs, target)} would give {given} {named} to the model, and "
            f"compare its output with part {target!r}. {describe_parts(batch)}"
        )


def _as_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(batch, tuple | list):
        return tuple(batch), {}
    return ((), batch) if isinstance(batch, dict) else ((batch,), {})


def _add_notes(error: BaseException, *notes: str) -> None:
    """Add the notes that the error does not have yet; one that takes none, such as a frozen one, stays."""
    with contextlib.suppress(Exception):
        for note in notes:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
