"""How a model is run on a batch: on which parts, by position or by name, and what an error then says."""

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from fno_telemetry.sources.batch_parts import BatchParts, Part
from fno_telemetry.sources.loaders import BATCH_NOTE, describe_call
from fno_telemetry.tracing.module_calls import unwrap

Forward = Callable[..., object]
"""Runs a batch instead of the model."""

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_OTHER_FORWARD = (
    "fno-telemetry: `forward` runs a batch in another way, such as forward=lambda batch: model(batch[0])"
)


@dataclass(frozen=True)
class BatchRun:
    """Runs batches: first `select` what of a batch goes into the model, then `run` the model on that."""

    model: nn.Module
    parts: BatchParts
    forward: Forward | None = None

    def select(self, batch: Any) -> Any:
        """Return what goes into the model: one part as it is, several by name, or a batch as a whole."""
        if self.parts.inputs is None and self.forward is not None:
            return batch
        chosen = self.parts.select_inputs(batch)
        if self.parts.inputs is None:
            return chosen
        return chosen[0][1] if len(chosen) == 1 else {str(name): part for name, part in chosen}

    def run(self, selected: Any) -> object:
        """Run the model on what was selected; an error gets a note of what a batch was taken to be."""
        if self.parts.inputs is None:
            if self.forward is not None:
                return self.forward(selected)
            args, keywords = _as_arguments(selected)
        else:
            args, keywords = self._name_arguments(self.parts.inputs, selected)
        try:
            return (self.forward or self.model)(*args, **keywords)
        except (Exception, SystemExit) as error:
            if self.forward is None:
                _add_notes(error, f"{BATCH_NOTE}{describe_call(args, keywords)}", _OTHER_FORWARD)
            raise

    def _name_arguments(self, parts: tuple[Part, ...], selected: Any) -> _Arguments:
        """Return the selected parts as positional and keyword arguments of the forward."""
        values = [selected] if len(parts) == 1 else [selected[str(part)] for part in parts]
        known = list_arguments(self.forward or unwrap(self.model).forward)
        names = [str(part).rpartition(".")[2] for part in parts]
        args = [value for name, value in zip(names, values, strict=True) if name not in known]
        keywords = {name: value for name, value in zip(names, values, strict=True) if name in known}
        return tuple(args), keywords


def list_arguments(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names that a function takes as keyword arguments, without those of a `**keywords`."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins and some C extensions have no signature
        return frozenset()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in by_name)


def _as_arguments(batch: Any) -> _Arguments:
    if isinstance(batch, tuple | list):
        return tuple(batch), {}
    return ((), batch) if isinstance(batch, dict) else ((batch,), {})


def _add_notes(error: BaseException, *notes: str) -> None:
    """Add the notes that the error does not have yet; one that takes none, such as a frozen one, stays."""
    with contextlib.suppress(Exception):
        for note in notes:
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
