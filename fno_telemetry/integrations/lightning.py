"""A callback that watches the network of a LightningModule while `Trainer.fit` runs."""

import inspect
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.errors import MissingExtra, OptionError
from fno_telemetry.integrations.dashboards import make_sinks
from fno_telemetry.integrations.learning_rates import UsedLearningRates
from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.sinks import Sink
from fno_telemetry.tracing.module_calls import find_wrapped
from fno_telemetry.watching import watch as watching
from fno_telemetry.watching.loop_watch import Scaler
from fno_telemetry.watching.loop_watch import Watch as LoopWatch
from fno_telemetry.wording import hint_at_names

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]
    except ImportError as error:
        raise MissingExtra(
            "ft.integrations.lightning needs lightning: pip install 'fno-telemetry[lightning]'."
        ) from error

_log = logging.getLogger("fno_telemetry")

_FROM_TRAINER = frozenset({"model", "sinks", "optimizer", "scaler"})


class Watch(Callback):
    """Records due steps of `Trainer.fit`, with the options of `fno_telemetry.watch`.

        trainer = Trainer(callbacks=[ft.integrations.lightning.Watch(every=100)])

    A step is one of the optimizer, whatever number of batches it accumulates; its number is
    `trainer.global_step` while it runs. Its loss is the one whose gradient is applied, from what
    `training_step` returns; where that is a dict with `output` and `target`, these two are compared. Learning
    rates are those of the step. The first validation after a recorded step makes a record, too; its loss is
    the mean of those that `validation_step` returns, and `output` and `target` are those of the first batch.
    The sanity check and tests are not recorded. Only the process of global rank 0 writes. Nothing is added to
    checkpoints.

    Without `sinks`, records go to the TensorBoardLogger and the WandbLogger of the trainer. `module` names
    the submodule to watch; without it, that is the LightningModule if `training_step` calls its forward,
    else its only child with parameters. Strategies that wrap the LightningModule, such as DDP, call all of
    `training_step` as its forward, so there only a child can be watched. OptionError if nothing fits.

    A callback of `lightning.pytorch` where that is installed; `pytorch_lightning.Trainer` takes it as well.
    """

    def __init__(
        self, sinks: Iterable[Sink] | None = None, *, module: str | None = None, **options: Any
    ) -> None:
        known = inspect.signature(watching.watch).parameters.keys() - _FROM_TRAINER
        for name in options:
            if name not in known:
                raise OptionError(f"unknown option {name!r}. {hint_at_names(name, sorted(known))}")
        self._sinks = None if sinks is None else list(sinks)
        self._module = module
        self._options = options
        self._forget()

    def _forget(self) -> None:
        self._watch: LoopWatch | None = None
        self._rates = UsedLearningRates()
        self._waiting: list[RemovableHandle] = []  # hooks that tell which module is called
        self._losses: list[torch.Tensor | None] = []  # of the batches of this step so far
        self._validated = _Validated()
        self._step = 0
        self._in_batch = False

    @property
    def problems(self) -> list[str]:
        """What went wrong in telemetry in the last fit; each problem is in the log as well."""
        return [] if self._watch is None else self._watch.problems

    def capture_now(self) -> None:
        """Measure the next step, whatever the schedule says."""
        if self._watch is not None:
            self._watch.capture_now()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the sinks and what to watch."""
        self._detach()
        self._forget()
        # All processes measure: forwards of one alone would wait for the others where they exchange values.
        sinks = self._sinks if trainer.is_global_zero else []
        if sinks is None:
            # The loggers of a fast_dev_run accept everything and write nothing.
            loggers = [] if trainer.fast_dev_run else trainer.loggers  # type: ignore[attr-defined]
            sinks = make_sinks(getattr(logger, "experiment", None) for logger in loggers)
            if not sinks:
                _log.warning(
                    "fno-telemetry: nothing is recorded: the trainer has no TensorBoardLogger "
                    "or WandbLogger; give `sinks`"
                )
                return
        candidates = self._find_candidates(pl_module, trainer.strategy.model is not pl_module)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        attach = partial(self._attach, sinks, scaler, trainer.global_step)
        if len(candidates) == 1 and find_wrapped(candidates[0]) is not None:
            # What is inside a wrapper, such as a compiled model, has to be watched before it is called.
            attach(candidates[0])
            return
        for module in candidates:

            def called(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], root: nn.Module = module
            ) -> None:
                if self._in_batch and module is root and module.training:
                    watch = attach(root)
                    if find_wrapped(root) is None:  # else the call of what is inside is still to come
                        watch.begin_forward(module, args, kwargs)

            self._waiting.append(module.register_forward_pre_hook(Hook(called), with_kwargs=True))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the number of the step."""
        self._in_batch = True
        if not self._losses:
            self._step = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the learning rates, which a scheduler changes before the batch ends."""
        if self._watch is not None:
            self._rates.note([optimizer])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the step if the optimizer has made one."""
        self._in_batch = False
        said = _as_mapping(outputs)
        self._losses.append(_loss_in(said))
        if trainer.global_step == self._step:
            return
        losses, self._losses = self._losses, []
        if self._watch is not None:
            known = [loss for loss in losses if loss is not None]
            # Each batch has its share of the loss already.
            whole = sum(known[1:], start=known[0]) if len(known) == len(losses) else None
            self._watch.step(self._step, loss=whole, output=said.get("output"), target=said.get("target"))
            self._rates.forget()
        elif self._waiting:
            self._stop_waiting()
            named = "the LightningModule or its child" if self._module is None else repr(self._module)
            _log.warning(
                "fno-telemetry: nothing is recorded: training_step did not call the forward of %s; "
                "name the network that it calls: Watch(module=...)",
                named,
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the validation before."""
        self._validated = _Validated()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note what `validation_step` returned."""
        if self._watch is not None:
            self._validated.add(outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the validation."""
        validated, self._validated = self._validated, _Validated()
        if self._watch is not None:
            self._watch.validation(loss=validated.mean_loss, output=validated.output, target=validated.target)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove all hooks, and wait until the sinks have what was recorded."""
        self._detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Do the same when the training fails or is interrupted."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Do the same where neither was called."""
        self._detach()

    def __getstate__(self) -> dict[str, Any]:
        """Return the options alone: what runs in this process cannot be copied or pickled."""
        return {"_sinks": self._sinks, "_module": self._module, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _find_candidates(self, whole: LightningModule, is_wrapped: bool) -> list[nn.Module]:
        """Return the modules of which the first one that is called is watched."""
        if self._module is not None:
            names = [name for name, _ in whole.named_modules() if name]
            if self._module not in names:
                raise OptionError(
                    f"`module` {self._module!r}: the LightningModule has none of this name. "
                    f"{hint_at_names(self._module, names)}"
                )
            return [whole.get_submodule(self._module)]
        children = {
            name: child
            for name, child in whole.named_children()
            if next(child.parameters(), None) is not None
        }
        # By its name, as there are two packages with a class of this name.
        has_forward = not is_wrapped and type(whole).forward.__qualname__ != "LightningModule.forward"
        candidates: list[nn.Module] = [whole] if has_forward else []
        if len(children) == 1:
            candidates += children.values()
        if not candidates:
            found = ", ".join(children) or "none"
            why = "the strategy wraps it" if is_wrapped else "it has no forward"
            raise OptionError(
                f"which part of the LightningModule to watch is not clear: {why}, and its children with "
                f"parameters are: {found}; name the network that training_step calls: Watch(module=...)"
            )
        return candidates

    def _attach(
        self, sinks: Iterable[Sink], scaler: Scaler | None, step: int, module: nn.Module
    ) -> LoopWatch:
        self._stop_waiting()
        self._watch = watching.watch(
            module,
            sinks,
            optimizer=cast(torch.optim.Optimizer, self._rates),
            scaler=scaler,
            **{"progress": False} | self._options,
        )
        self._watch.resume(step)
        return self._watch

    def _stop_waiting(self) -> None:
        for handle in self._waiting:
            handle.remove()
        self._waiting.clear()

    def _detach(self) -> None:
        self._stop_waiting()
        self._losses.clear()
        if self._watch is not None:
            self._watch.close()


class _Validated:
    """What `validation_step` returned for the batches of a validation."""

    def __init__(self) -> None:
        self.output: object = None
        self.target: object = None
        self._total: torch.Tensor | None = None
        self._batches = self._without_loss = 0

    @property
    def mean_loss(self) -> torch.Tensor | None:
        """The mean over the batches; None if one of them had no loss."""
        return None if self._total is None or self._without_loss else self._total / self._batches

    def add(self, outputs: Any) -> None:
        """Add a batch."""
        said = _as_mapping(outputs)
        loss = _loss_in(said)
        if not self._batches:
            self.output, self.target = said.get("output"), said.get("target")
        self._batches += 1
        if loss is None:
            self._without_loss += 1
        else:
            self._total = loss if self._total is None else self._total + loss


def _as_mapping(outputs: Any) -> Mapping[str, Any]:
    """Return what a step of a LightningModule has returned: a dict, or the loss alone."""
    return outputs if isinstance(outputs, Mapping) else {"loss": outputs}


def _loss_in(said: Mapping[str, Any]) -> torch.Tensor | None:
    loss = said.get("loss")
    return loss.detach() if isinstance(loss, torch.Tensor) else None
