"""The callback in real fits of Lightning: what it records, and that it changes nothing."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader

import fno_telemetry as ft
from darcy_flow import FNO, make_dataset
from fno_telemetry.errors import OptionError
from fno_telemetry.integrations.lightning import Watch
from support import wandb_log

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers

SAMPLES, BATCH = 24, 4  # six batches an epoch


class Darcy(LightningModule):
    """Its only child with parameters is the network, which training_step calls by name."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(FNO(width=4, modes=3), nn.BatchNorm2d(1), nn.Dropout(0.1))
        self.criterion = nn.MSELoss()
        self.losses: list[float] = []
        self.stop_at = stop_at

    def predict(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        if len(self.losses) == self.stop_at:
            raise RuntimeError("the training failed")
        x, y = batch
        output = self.predict(x)
        loss = self.criterion(output, y)
        self.losses.append(loss.item())
        self.log("loss", loss)
        return {"loss": loss, "output": output, "target": y}

    def validation_step(self, batch, batch_idx):
        x, y = batch
        output = self.predict(x)
        loss = self.criterion(output, y)
        self.log("val_loss", loss)
        return {"loss": loss, "output": output, "target": y}

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Forwarding(Darcy):
    """Its training_step calls its forward."""

    def forward(self, x):
        return self.net(2 * x)

    def predict(self, x):
        return self(x)


class Unused(Darcy):
    """It has a forward, for prediction alone."""

    def forward(self, x):
        return self.net(x)


class Layers(Darcy):
    """Its layers are its own children, and its forward calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = None
        self.lifting, self.projection = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.projection(nn.functional.gelu(self.lifting(x)))

    def predict(self, x):
        return self(x)


class LayersWithoutForward(Layers):
    """Its layers are called one by one."""

    forward = LightningModule.forward

    def predict(self, x):
        return self.projection(nn.functional.gelu(self.lifting(x)))


class TwoOptimizers(Darcy):
    """Steps by itself, once for each half of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(found["loss"])
        for optimizer in optimizers:
            optimizer.step()
        return found

    def configure_optimizers(self):
        parameters = list(self.parameters())
        return [
            torch.optim.SGD(half, lr=rate) for half, rate in ((parameters[:3], 1e-2), (parameters[3:], 1e-3))
        ]


def trained(sink) -> list[ft.CaptureRecord]:
    return [record for record in sink.records if record.stage == "train"]


def validated(sink) -> list[ft.CaptureRecord]:
    return [record for record in sink.records if record.stage == "val"]


def loader(samples: int = SAMPLES, seed: int = 0) -> DataLoader:
    return DataLoader(make_dataset(samples, size=8, seed=seed), batch_size=BATCH, shuffle=seed == 0)


def fit(module, *callbacks, trainer_class=Trainer, ckpt_path=None, **options):
    torch.manual_seed(0)
    trainer = trainer_class(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 2,
            "callbacks": list(callbacks),
            **options,
        }
    )
    trainer.fit(module, loader(), loader(8, seed=1), ckpt_path=ckpt_path)
    return trainer


def build(kind: type[Darcy] = Darcy, **arguments):
    torch.manual_seed(1)
    return kind(**arguments)


def state_of(module, trainer) -> list[torch.Tensor]:
    tensors = list(module.state_dict().values())
    for optimizer in trainer.optimizers:
        tensors += [value for own in optimizer.state.values() for value in own.values() if value is not None]
    return [*tensors, torch.get_rng_state()]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [0, 1, 3, 6, 9]),
        ({"gradient_clip_val": 0.01}, [0, 1, 3, 6, 9]),
        ({"val_check_interval": 2}, [0, 1, 3, 6, 9]),
        # Six batches make two steps: of four batches and of two.
        ({"accumulate_grad_batches": 4, "max_epochs": 3}, [0, 1, 3]),
    ],
    ids=["plain", "clipped", "validation in between", "accumulation"],
)
@pytest.mark.parametrize("kind", [Darcy, Forwarding, Unused, Layers])
def test_a_watched_fit_is_bit_identical(sink, hooks_of, kind, options, steps) -> None:
    plain = build(kind)
    expected = state_of(plain, fit(plain, **options))
    watched = build(kind)
    before = hooks_of(watched)
    watch = Watch([sink], every=3, first=2)
    found = state_of(watched, fit(watched, watch, **options))
    assert watched.losses == plain.losses
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert [record.step for record in trained(sink)] == steps
    assert validated(sink)
    assert all(record.errors == () for record in sink.records)
    assert watch.problems == []
    assert hooks_of(watched) == before


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (Darcy, {}, "Sequential"),
        (Unused, {}, "Sequential"),
        (Forwarding, {}, "Forwarding"),
        (Layers, {}, "Layers"),
        (Darcy, {"module": "net.0"}, "FNO"),
        (Forwarding, {"module": "net"}, "Sequential"),
    ],
)
def test_what_training_step_calls_is_watched(sink, kind, options, name) -> None:
    fit(build(kind), Watch([sink], every=4, **options), max_steps=2)
    assert [record.summary["architecture"] for record in trained(sink)] == [name]


@pytest.mark.parametrize("kind", [Darcy, Unused])
def test_a_wrapped_child_is_watched_inside(sink, kind) -> None:
    module = build(kind)
    module.net = nn.DataParallel(module.net)
    fit(module, Watch([sink], every=1), max_steps=2)
    assert [record.summary["architecture"] for record in trained(sink)] == ["Sequential"] * 2
    assert [record.training["forwards"] for record in trained(sink)] == [1, 1]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LayersWithoutForward, {}, r"parameters are: lifting, projection; name the network .* Watch\(module"),
        (Darcy, {"module": "nets"}, "`module` 'nets': the LightningModule has none .*net"),
    ],
)
def test_an_unclear_module_is_an_error_before_the_first_step(sink, kind, options, message) -> None:
    module = build(kind)
    with pytest.raises(OptionError, match=message):
        fit(module, Watch([sink], **options))
    assert module.losses == []


def test_a_forward_that_is_never_called_is_logged_once(sink, caplog) -> None:
    module = build(LayersWithoutForward)
    module.extra = nn.Linear(1, 1)
    fit(module, Watch([sink], module="extra"))
    told = [line for line in caplog.messages if "did not call the forward of 'extra'" in line]
    assert len(told) == 1
    assert trained(sink) == []


def test_an_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'evry'.*every"):
        Watch(evry=3)


def test_loss_accuracy_and_learning_rate_are_those_of_the_step(sink) -> None:
    module = build()
    fit(module, Watch([sink], every=1), max_steps=3)
    assert [record.summary["loss"] for record in trained(sink)] == pytest.approx(module.losses)
    assert [record.training["learning_rates"] for record in trained(sink)] == [(0.01,), (0.005,), (0.0025,)]
    assert all(record.accuracy.stats["relative_l2"] > 0 for record in trained(sink))


def test_the_loss_of_an_accumulated_step_is_the_mean_of_its_batches(sink) -> None:
    module = build()
    fit(module, Watch([sink], every=1), accumulate_grad_batches=3, max_epochs=1)
    means = [sum(module.losses[:3]) / 3, sum(module.losses[3:]) / 3]
    assert [record.summary["loss"] for record in trained(sink)] == pytest.approx(means)
    assert [record.training["forwards"] for record in trained(sink)] == [3, 3]


def test_gradients_are_those_before_the_trainer_clips_them(sink) -> None:
    for value in (None, 1e-4):
        fit(build(), Watch([sink]), max_steps=1, gradient_clip_val=value)
    free, clipped = (record.module("0.projection").stats for record in trained(sink))
    assert clipped["grad_norm"] == free["grad_norm"] > 1e-3


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, [5, 11]), ({"val_check_interval": 2}, [1, 3, 5, 7, 9, 11]), ({"num_sanity_val_steps": 0}, [5, 11])],
    ids=["epochs", "validation in between", "no sanity check"],
)
def test_validations_are_records_of_their_own_and_the_sanity_check_is_none(sink, options, steps) -> None:
    module = build()
    fit(module, Watch([sink], every=1, validation_batches=2), **options)
    assert [record.step for record in validated(sink)] == steps
    assert [record.step for record in trained(sink)] == list(range(12))
    captured = ft.capture(module.net, [x for x, _ in loader(8, seed=1)])
    last = validated(sink)[-1]
    assert last.training["forwards"] == 2 and last.summary["n_samples"] == 8
    for one, other in zip(captured.modules, last.modules, strict=True):
        assert one.stats["rms"] == pytest.approx(other.stats["rms"], rel=1e-6)
    assert last.parameters == () and "update_to_weight" not in last.modules[0].stats


def test_the_loss_of_a_validation_is_the_mean_of_its_batches(sink) -> None:
    module = build()
    trainer = fit(module, Watch([sink], every=6))
    [first, second] = validated(sink)
    assert (first.step, second.step) == (5, 11)
    assert second.summary["loss"] == pytest.approx(float(trainer.callback_metrics["val_loss"]))
    x, y = next(iter(loader(8, seed=1)))
    with torch.no_grad():
        output = module.eval().net(x)
    error = float((output - y).norm() / y.norm())
    assert second.accuracy.stats["relative_l2"] == pytest.approx(error, rel=1e-5)


def test_of_validations_only_those_after_a_recorded_step_are_recorded(sink) -> None:
    watch = Watch([sink], every=7)
    fit(build(), watch, val_check_interval=2)
    assert [record.step for record in trained(sink)] == [0, 7]
    assert [record.step for record in validated(sink)] == [1, 7]
    assert watch.problems == []


def test_steps_of_several_optimizers_are_those_of_the_trainer(sink) -> None:
    module = build(TwoOptimizers)
    fit(module, Watch([sink], every=4), max_epochs=1)
    assert [record.step for record in trained(sink)] == [0, 4, 8]
    assert [record.summary["loss"] for record in trained(sink)] == pytest.approx(module.losses[::2])
    assert trained(sink)[0].training["learning_rates"] == (1e-2, 1e-3)


def test_a_resumed_fit_goes_on_at_the_step_of_the_checkpoint(sink, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    fit(build(), Watch([sink], every=4), saved, max_steps=5, **options)
    assert [record.step for record in trained(sink)] == [0, 4]
    checkpoint = torch.load(tmp_path / "step=5.ckpt", weights_only=False)
    assert not [key for key in checkpoint["callbacks"] if "Watch" in key]
    assert checkpoint["state_dict"].keys() == build().state_dict().keys()
    fit(build(), Watch([sink], every=4), max_epochs=2, ckpt_path=tmp_path / "step=5.ckpt")
    assert [record.step for record in trained(sink)] == [0, 4, 8]
    alone = build()
    fit(alone, max_epochs=2, ckpt_path=tmp_path / "step=5.ckpt")
    assert len(alone.losses) == 7


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(sink, hooks_of, error) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise error

    module = build()
    before = hooks_of(module)
    with pytest.raises((error, SystemExit)):
        fit(module, Watch([sink], every=1), Stop())
    assert hooks_of(module) == before
    assert [record.step for record in trained(sink)] == [0, 1, 2, 3]
    assert sink.run is None  # closed


def test_an_error_of_training_step_leaves_nothing_behind(sink, hooks_of) -> None:
    module = build(stop_at=2)
    before = hooks_of(module)
    with pytest.raises(RuntimeError, match="the training failed"):
        fit(module, Watch([sink], every=1))
    assert hooks_of(module) == before
    assert [record.step for record in trained(sink)] == [0, 1]


def test_module_and_callback_can_be_copied_and_pickled_during_a_fit(sink, hooks_of) -> None:
    class Copies(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            copied = copy.deepcopy(pl_module)
            with torch.no_grad():
                copied.net(torch.zeros(1, 1, 8, 8))
            assert not any(hooks_of(copied))
            assert pickle.loads(pickle.dumps(Watch(every=3))).problems == []
            self.watch = copy.deepcopy(trainer.callbacks[0])

    copies = Copies()
    fit(build(), Watch([sink], every=1), copies, max_steps=2)
    assert [record.step for record in trained(sink)] == [0, 1]
    assert copies.watch.problems == []


def test_one_callback_serves_several_fits(sink) -> None:
    watch = Watch([sink], every=3)
    for _ in range(2):
        fit(build(), watch, max_epochs=1)
    assert [record.step for record in trained(sink)] == [0, 3, 0, 3]


def test_a_trainer_of_pytorch_lightning_takes_the_callback(sink) -> None:
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = FNO(width=4, modes=3)

        training_step = Darcy.training_step
        predict = Darcy.predict
        configure_optimizers = Darcy.configure_optimizers
        criterion = staticmethod(nn.functional.mse_loss)
        losses: list[float] = []  # noqa: RUF012 - of the only instance
        stop_at = None

    fit(Other(), Watch([sink], every=3), trainer_class=pytorch_lightning.Trainer, max_epochs=1)
    assert [record.step for record in trained(sink)] == [0, 3]


def test_records_go_to_the_trainers_tensorboard_by_default(tmp_path: Path, read_events) -> None:
    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "board")]
    fit(build(), Watch(every=4), logger=loggers, log_every_n_steps=1)
    [folder] = (tmp_path / "board" / "lightning_logs").iterdir()
    events = read_events(folder)
    assert [step for step, _ in events["rms/0/lifting"]] == [0, 4, 8]
    assert [step for step, _ in events["loss"]] == list(range(12))


def test_records_share_the_trainers_wandb_run_and_no_row_is_lost(alone: Path) -> None:
    import wandb

    logger = WandbLogger(save_dir=alone, offline=True, project="test")
    fit(build(), Watch(every=4), logger=logger, log_every_n_steps=1)
    logger.experiment.finish()
    wandb.teardown()
    [folder] = (alone / "wandb").glob("offline-run-*")
    rows = wandb_log.read_rows(folder)
    assert [row["trainer/global_step"] for row in rows if "loss" in row] == list(range(12))
    assert [row["checkpoint_step"] for row in rows if "rms/0/lifting" in row] == [0, 4, 8]


@pytest.mark.parametrize("options", [{"logger": False}, {"fast_dev_run": True}])
def test_without_sinks_and_loggers_the_log_says_so(caplog, options) -> None:
    module = build()
    fit(module, Watch(every=1), **options)
    assert "nothing is recorded: the trainer has no TensorBoardLogger or WandbLogger" in caplog.text
    assert module.losses


def test_of_several_processes_the_first_one_writes(tmp_path: Path) -> None:
    watch = Watch([ft.JsonFile()], every=2, folder=tmp_path)
    module = build(Unused)
    fit(module, watch, devices=2, strategy="ddp_fork", max_epochs=1, use_distributed_sampler=True)
    reports = sorted(path.name for path in tmp_path.iterdir())
    names = ["activation_report.step0", "activation_report.step2", "activation_report.step2.val"]
    assert reports == [f"{name}.json" for name in names]
    report = ft.load_report(tmp_path / reports[0])
    assert report.summary["architecture"] == "Sequential"
    assert report.module("0.projection").stats["grad_norm"] > 0
