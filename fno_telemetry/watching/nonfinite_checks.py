"""Whether the outputs and the loss of a training are finite, and what is done where they are not."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from fno_telemetry.isolation.compilation import keep_uncompiled
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.records import CaptureRecord
from fno_telemetry.watching.forward_state import ForwardState, is_finite
from fno_telemetry.watching.nonfinite_dump import Dump, describe_origin
from fno_telemetry.watching.own_forwards import OwnForwards
from fno_telemetry.watching.pending_checks import PendingChecks
from fno_telemetry.watching.stages import Stage
from fno_telemetry.watching.step_measurement import LoopFacts, is_scalar, read_number


class NonfiniteChecks:
    """Looks at each output and loss until one is not finite, and then dumps that forward, measured again.

    `apart` is what a block runs in that must not raise into the loop, `note` takes what the user is told, and
    `is_elsewhere` says whether a hook runs for a forward that is not the loop's. `step` is the one that the
    loop is in.
    """

    def __init__(
        self,
        root: nn.Module,
        stage: Stage,
        own: OwnForwards,
        dump: Dump,
        note: Callable[[str], None],
        apart: Callable[[], AbstractContextManager[None]],
        is_elsewhere: Callable[[], bool],
    ) -> None:
        self.step = 0
        self._root = root
        self._stage = stage
        self._own = own
        self._dump = dump
        self._note = note
        self._apart = apart
        self._is_elsewhere = is_elsewhere
        self._state: ForwardState | None = None  # of the forward that runs
        self._has_dumped = False
        self._pending = PendingChecks()
        self._before_updates: RemovableHandle | None = None

    def keep(self, record: CaptureRecord) -> None:
        """Keep a record of a training step for a dump."""
        self._dump.keep(record)

    def start_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what a forward depends on that begins now."""
        self.ask_device()
        if not self._has_dumped and self._state is None:
            self._state = ForwardState(self._root, args, kwargs)

    def start_step(self, loss: object, step: int) -> None:
        """Look at the loss of a step that has ended, and at what a GPU says of its outputs."""
        self._pending.release_states()
        self.ask_device()
        self._look_at_loss(step, loss)

    def close(self) -> None:
        """Look at what a GPU says last, and remove the hook of optimizers."""
        if self._before_updates is not None:
            self._before_updates.remove()
        self._pending.release_states()
        self.ask_device()

    def look_at_output(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Measure the forward that has just ended once more if its output is not finite."""
        if self._is_elsewhere():
            return
        state, self._state = self._state, None
        if state is None:
            return
        with self._apart():
            if not is_finite(output):
                self._has_dumped = True
                self._measure_again(state, self.step)
            elif self._pending.add("output", self.step, output, state):
                self._look_before_updates()

    def ask_device(self) -> None:
        """Report what a GPU has answered so far about earlier outputs and losses."""
        if self._has_dumped or not self._pending:
            return
        with self._apart():
            found = self._pending.find_nonfinite()
            if found is None:
                return
            self._has_dumped = True
            self._pending.clear()
            if found.what == "loss":
                self._report_loss(found.step)
            elif found.state is not None:
                self._measure_again(found.state, found.step)
            else:
                path = self._dump.write_kept(found.step)
                kept = "" if path is None else f"; see {path} for the last records"
                self._note(
                    f"the output of the model at step {found.step} is not finite; the device said so only "
                    f"after the update, so the module is not known{kept}"
                )

    def _look_before_updates(self) -> None:
        """Ask once more before an optimizer changes the parameters, when a forward cannot be run again."""
        if self._before_updates is None:
            alive = weakref.ref(self)

            def before_update(optimizer: torch.optim.Optimizer, *_: object) -> None:
                checks = alive()
                if checks is not None and checks._pending and not checks._is_elsewhere():
                    own = {id(parameter) for parameter in checks._root.parameters()}
                    if any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
                        checks.ask_device()
                        checks._pending.release_states()

            self._before_updates = register_optimizer_step_pre_hook(Hook(before_update))
            weakref.finalize(self, self._before_updates.remove)

    @keep_uncompiled
    def _measure_again(self, state: ForwardState, step: int) -> None:
        if not state.is_input_unchanged():
            self._note(f"the output of step {step} is not finite; its input was overwritten since")
            return
        measured = self._stage.prepare_again(state.args, state.kwargs)
        self._own.measure(measured, state)
        record = measured.make_record(LoopFacts(step, self._stage.name, nonfinite="output"))
        measured.stop()
        path = self._dump.write(record)
        self._note(f"{describe_origin(record)}; see {path}")

    def _look_at_loss(self, step: int, loss: object) -> None:
        if self._has_dumped or loss is None:
            return
        with self._apart():
            if not is_scalar(loss) or self._pending.add("loss", step, loss, None):
                return
            if read_number(loss) is None:
                self._has_dumped = True
                self._report_loss(step)

    def _report_loss(self, step: int) -> None:
        self._note(f"the loss of step {step} is not finite, while the outputs of the model are")
