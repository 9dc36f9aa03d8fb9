"""Notes for each tensor of a forward what its value comes from, also where code cannot be followed."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import nn

from fno_telemetry.tracing import torch_functions
from fno_telemetry.tracing.lineage import (
    MODEL_INPUT,
    Lineage,
    LineageTable,
    Operand,
    Part,
    Whole,
    find_origin,
)
from fno_telemetry.tracing.module_calls import Call, owns_parameters
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.tracing.tensor_memory import is_whole_view
from fno_telemetry.tracing.tensor_shapes import read_shape

_OF_TORCH = frozenset(vars(nn.Module()))
"""What torch keeps in every module: its parameters, its hooks, its flags."""


class ValueFlow:
    """The lineages of the tensors of one forward."""

    def __init__(self, model: nn.Module) -> None:
        self.lineages = LineageTable()
        self._model = model
        self._held: dict[int, torch.Tensor] = {}  # by id: the tensors that modules hold before the forward

    def start(self) -> None:
        """Forget everything, and look which tensors the modules hold."""
        self.forget()
        self._held = {id(tensor): tensor for tensor in _tensors_held_by(self._model)}

    def forget(self) -> None:
        """Forget everything."""
        self.lineages.clear()
        self._held.clear()

    def is_followed(self, tensor: torch.Tensor) -> bool:
        """Whether the value of a tensor is known to come from the model's input."""
        return self.lineages.get(tensor) is not None

    def note_input(self, tensors: Iterable[torch.Tensor]) -> None:
        """Note the tensors that the model itself is given."""
        for tensor in tensors:
            if not self.is_followed(tensor):
                self.lineages.set_made(tensor, MODEL_INPUT)

    def note_unseen(self, tensors: Iterable[torch.Tensor], running: Call | None) -> None:
        """Let tensors of unknown origin depend on everything that the running code has computed so far.

        They come from code that cannot be followed, such as a scripted function, unless a module holds them.
        """
        if running is None or not running.index:
            return
        for tensor in tensors:
            known = self.is_followed(tensor) or self.lineages.constants.get(tensor)
            if known or id(tensor) in self._held:
                continue
            latest = running.latest
            likely = latest is not None and latest.shape == read_shape(tensor)
            self.lineages.set_made(tensor, running.seen, latest.value if latest and likely else 0)

    def note_constants(self, tensors: Iterable[torch.Tensor]) -> None:
        """Note tensors that nothing of the model's input has reached."""
        for tensor in tensors:
            self.lineages.constants.set(tensor, True)

    def enter(self, call: Call, entered: Sequence[torch.Tensor]) -> None:
        """Note in a call what it was given."""
        call.before = call.seen = self.lineages.union(entered) or Lineage()
        operands = self.lineages.operands(entered)
        rank = max((len(operand.shape) for operand in operands), default=0)
        call.entered = reduce(or_, (o.value for o in operands if len(o.shape) == rank), 0)

    def note_result(
        self,
        name: str,
        args: tuple[Any, ...],
        entered: Sequence[torch.Tensor],
        changed: Sequence[torch.Tensor],
        target: torch.Tensor | None,
        lineage: Lineage,
        running: Call,
    ) -> list[torch.Tensor]:
        """Note what a function made or wrote of the tensors that entered it, with their joined lineage.

        `target` is the tensor that it writes into, if any. Returns the tensors with a new value.
        """
        own, shape = self.lineages.get(entered[0]), read_shape(entered[0])
        operands = self.lineages.operands(entered)
        whole = self.lineages.join_parts(entered) if name in torch_functions.JOINING else None
        made = []
        for position, tensor in enumerate(changed):
            if target is None and any(tensor is one for one in entered):
                continue  # returned as it is
            same = torch_functions.keeps_values(name, args) or is_whole_view(tensor, entered[0])
            if target is None and own is not None and same:
                self.lineages.set(tensor, own)
            elif whole is not None and read_shape(tensor) == whole.shape:
                self.lineages.set(tensor, whole.lineage)
            else:
                self.lineages.set_made(tensor, lineage, find_origin(operands, read_shape(tensor)))
            # Writing into a view changes its base.
            if target is tensor and (base := target._base) is not None:
                before = self.lineages.get(base) or Lineage()
                self.lineages.set_made(base, lineage.join(before), before.value)
            if own is not None and shape is not None and name in torch_functions.SPLITTING:
                self.lineages.parts.set(tensor, Part(Whole(own, shape), position, len(changed)))
            self._note_used(tensor, running)
            made.append(tensor)
        return made

    def leave(self, call: Call, given: Sequence[torch.Tensor], output: Any) -> None:
        """Note what a call returned."""
        spectral = self.lineages.spectral
        operands = self.lineages.operands(given)
        # A network that holds a parameter itself is not the layer that made its output.
        is_network = spectral & ~call.bit and spectral >> call.index << call.index == spectral
        for tensor in tensors_in(output):
            # A module that returns its input unchanged made nothing.
            if any(tensor is one for one in given) and not call.input_overwritten:
                continue
            own = self.lineages.get(tensor) or call.before
            made = own.join(call.before)
            makers = call.bit if owns_parameters(call.module) and not is_network else own.makers
            made = made._replace(calls=made.calls | call.bit, makers=makers)
            self.lineages.set_made(tensor, made, self._find_origin(call, tensor, operands))
            if call.parent is not None:
                self._note_used(tensor, call.parent)

    def _find_origin(self, call: Call, output: torch.Tensor, operands: Sequence[Operand]) -> int:
        """Return the value that an output of a call comes from; 0 for a spectral call, which starts anew."""
        if call.spectral:
            return 0
        if self.lineages.spectral >> call.index:
            # Spectral calls inside: only the way through them is known.
            lineage = self.lineages.get(output)
            return lineage.value if lineage is not None else 0
        return find_origin(operands, read_shape(output))

    def _note_used(self, tensor: torch.Tensor, running: Call) -> None:
        lineage, shape = self.lineages.get(tensor), read_shape(tensor)
        if lineage is not None and shape is not None:
            running.seen = running.seen.join(lineage)
            running.latest = Operand(shape, lineage.value)


def _tensors_held_by(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters, buffers and other tensors that are attributes of modules, or inside of one."""
    for module in model.modules():
        yield from tensors_in((module._parameters, module._buffers))
        for name, value in vars(module).items():
            if name not in _OF_TORCH:
                yield from tensors_in(value)
