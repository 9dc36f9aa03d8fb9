"""Watches the model of a neuraloperator `Trainer` while its `train` runs."""

from collections.abc import Callable, Iterable, Sized
from typing import Any, Protocol, Self, cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from fno_telemetry.errors import OptionError
from fno_telemetry.integrations.learning_rates import UsedLearningRates
from fno_telemetry.sinks import Sink
from fno_telemetry.watching import watch as watching


class Trainer(Protocol):
    """What is used of `neuralop.training.Trainer` and of the classes that are made of it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


def watch(trainer: Trainer, sinks: Iterable[Sink] = (), **options: Any) -> "TrainerWatch":
    """Watch the model of a trainer, with the options of `fno_telemetry.watch`.

        with ft.integrations.neuralop.watch(trainer, [ft.TensorBoard(writer)], every=100):
            trainer.train(train_loader, test_loaders, optimizer, scheduler, training_loss=loss)

    A step is a training batch, counted over all epochs, also after `resume_from_dir`. Its loss is the one of
    the batch, with the regularizer; the output is compared with `y` as the training loss gets them, after the
    data processor. The first evaluation after a recorded step makes a record, too, of its first batches; it
    has a loss if there is one loader with one loss. With `use_distributed`, only rank 0 writes.

    The trainer logs a W&B row for each epoch, and keeps all of them. With `ft.WandbRun(wandb.run)`, W&B has
    the last record of each epoch; other sinks have all of them.

    Raises:
        OptionError: an argument cannot be used.
        SinkUnavailable: a sink cannot be opened.
    """
    for name in ("train_one_epoch", "train_one_batch"):
        if not callable(getattr(trainer, name, None)):
            raise OptionError(
                f"`trainer` is a {type(trainer).__name__} without {name}: a neuralop Trainer was expected"
            )
    return TrainerWatch(trainer, sinks, options)


class TrainerWatch:
    """Follows the batches of a neuraloperator `Trainer`; `watch` makes it.

    `watch` is the `fno_telemetry.Watch` of the model.
    """

    def __init__(self, trainer: Trainer, sinks: Iterable[Sink], options: dict[str, Any]) -> None:
        self._trainer = trainer
        self._rates = UsedLearningRates()
        self._optimizer: torch.optim.Optimizer | None = None  # the one that tells of its steps
        self._handles: list[RemovableHandle] = []
        self._first: int | None = None  # the step of the first batch of the running epoch
        self._step = 0
        self._seen: dict[str, Any] = {}  # the loss, output and target of the running batch
        self._own: list[_Replacement] = []
        self.watch = watching.watch(
            trainer.model,
            sinks,
            optimizer=cast(torch.optim.Optimizer, self._rates),
            scaler=_NoScale(),
            **{"progress": False} | options,
        )
        self._own = [
            _Replacement(trainer, "train_one_epoch", self._train_one_epoch),
            _Replacement(trainer, "train_one_batch", self._train_one_batch),
        ]
        if callable(getattr(trainer, "evaluate_all", None)):
            self._own.append(_Replacement(trainer, "evaluate_all", self._evaluate_all))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the trainer as it was, and wait until the sinks have what was recorded."""
        for replacement in self._own:
            replacement.remove()
        self._own.clear()
        self._forget_optimizer()
        self._seen = {}
        self.watch.close()

    def _train_one_epoch(
        self, method: Callable[..., Any], epoch: int, train_loader: Sized, *args: Any, **kwargs: Any
    ) -> Any:
        first = epoch * len(train_loader)
        if self._first is None:
            self.watch.resume(first)
        self._first = first
        return method(epoch, train_loader, *args, **kwargs)

    def _train_one_batch(
        self, method: Callable[..., Any], idx: int, sample: Any, training_loss: Callable[..., Any]
    ) -> Any:
        self._follow_optimizer()
        self._step = (self._first or 0) + idx
        self._seen = {}
        loss = method(idx, sample, _NotedLoss(training_loss, self._seen))
        self._seen["loss"] = loss
        return loss

    def _evaluate_all(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        metrics = method(*args, **kwargs)
        losses = list(metrics.values()) if isinstance(metrics, dict) else []
        self.watch.validation(loss=losses[0] if len(losses) == 1 else None)
        return metrics

    def _follow_optimizer(self) -> None:
        optimizer = self._trainer.optimizer
        if optimizer is not self._optimizer:
            self._forget_optimizer()
            self._optimizer = optimizer
            self._handles = [
                optimizer.register_step_pre_hook(self._note_rates),
                optimizer.register_step_post_hook(self._end_step),
            ]

    def _forget_optimizer(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._optimizer = None

    def _note_rates(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._rates.note([optimizer])

    def _end_step(self, *_: object) -> None:
        self.watch.step(self._step, **self._seen)
        self._seen = {}
        self._rates.forget()


class _Replacement:
    """Stands for a method of one trainer, and passes the method on to `body`.

    A copy or pickle of the trainer has the method itself.
    """

    def __init__(self, trainer: Trainer, name: str, body: Callable[..., Any]) -> None:
        self._trainer = trainer
        self._name = name
        self._body = body
        self._before = vars(trainer).get(name)
        self._method = getattr(trainer, name)
        setattr(trainer, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._body(self._method, *args, **kwargs)

    def remove(self) -> None:
        """Give the trainer its method back, unless somebody else has replaced it since."""
        if vars(self._trainer).get(self._name) is not self:
            return
        if self._before is None:
            delattr(self._trainer, self._name)
        else:
            setattr(self._trainer, self._name, self._before)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (self._trainer, self._name)


class _NotedLoss:
    """The training loss, which notes what it compares."""

    def __init__(self, loss: Callable[..., Any], seen: dict[str, Any]) -> None:
        self._loss = loss
        self._seen = seen

    def __call__(self, output: Any, *args: Any, **kwargs: Any) -> Any:
        self._seen["output"], self._seen["target"] = output, kwargs.get("y")
        return self._loss(output, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loss, name)


class _NoScale:
    """The trainer multiplies its loss by nothing, with float16 either."""

    def get_scale(self) -> float:
        return 1.0
