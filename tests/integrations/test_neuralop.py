"""The Trainer of neuraloperator, watched in real trainings: what is recorded, and that nothing changes."""

import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import fno_telemetry as ft
from darcy_flow import make_dataset
from fno_telemetry.errors import OptionError
from support import wandb_log

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from neuralop.data.transforms.data_processors import DefaultDataProcessor
    from neuralop.data.transforms.normalizers import UnitGaussianNormalizer
    from neuralop.layers.spectral_convolution import SpectralConv
    from neuralop.losses import LpLoss
    from neuralop.models import FNO
    from neuralop.training import AdamW, Trainer
    from neuralop.training.incremental import IncrementalFNOTrainer

pytestmark = pytest.mark.filterwarnings("ignore")  # the library tells of arguments that it ignores

watch = ft.integrations.neuralop.watch

BATCHES = 4  # in an epoch


class Named(Dataset):
    def __init__(self, samples: int, seed: int) -> None:
        self.pairs = make_dataset(samples, size=8, seed=seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int):
        return dict(zip(("x", "y"), self.pairs[index], strict=True))


def trained(sink) -> list[ft.CaptureRecord]:
    return [record for record in sink.records if record.stage == "train"]


def validated(sink) -> list[ft.CaptureRecord]:
    return [record for record in sink.records if record.stage == "val"]


def build(kind: type = Trainer, epochs: int = 3, **options):
    torch.manual_seed(1)
    model = FNO(n_modes=(3, 3), in_channels=1, out_channels=1, hidden_channels=4, n_layers=2)
    return kind(model=model, n_epochs=epochs, **options)


def processor() -> DefaultDataProcessor:
    pairs = make_dataset(16, size=8)
    normalizers = [UnitGaussianNormalizer(dim=[0, 2, 3]) for _ in range(2)]
    for normalizer, tensor in zip(normalizers, pairs.tensors, strict=True):
        normalizer.fit(tensor)
    return DefaultDataProcessor(*normalizers)


def train(trainer, losses: list[float] | None = None, **options):
    torch.manual_seed(0)
    optimizer = AdamW(trainer.model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    own = LpLoss(d=2)

    def loss(output, y, **_):
        value = own(output, y)
        if torch.is_grad_enabled() and losses is not None:
            losses.append(value.item())
        return value

    loaders = DataLoader(Named(16, 0), batch_size=4, shuffle=True), DataLoader(Named(8, 1), batch_size=4)
    metrics = trainer.train(
        loaders[0], {"test": loaders[1]}, optimizer, scheduler, training_loss=loss, **options
    )
    metrics.pop("epoch_train_time")
    return [*trainer.model.parameters(), *trainer.model.buffers(), torch.get_rng_state()], metrics


@pytest.mark.parametrize(
    "options",
    [{}, {"data_processor": processor}, {"mixed_precision": True}],
    ids=["plain", "normalised", "mixed precision"],
)
def test_a_watched_training_is_bit_identical(sink, hooks_of, options) -> None:
    results = []
    for watched in (False, True):
        made = {name: value() if callable(value) else value for name, value in options.items()}
        trainer, losses = build(**made), []
        before = hooks_of(trainer.model), set(vars(trainer))
        if watched:
            with watch(trainer, [sink], every=3, first=2) as watching:
                found = train(trainer, losses)
            assert watching.watch.problems == []
            assert not trainer.optimizer._optimizer_step_post_hooks
            assert not trainer.optimizer._optimizer_step_pre_hooks
        else:
            found = train(trainer, losses)
        results.append((losses, *found))
        assert (hooks_of(trainer.model), set(vars(trainer)) & {"train_one_batch", "train_one_epoch"}) == (
            before[0],
            set(),
        )
    (plain, expected, metrics), (watched_losses, found, watched_metrics) = results
    assert watched_losses == plain
    assert watched_metrics == metrics
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    assert [record.step for record in trained(sink)] == [0, 1, 3, 6, 9]
    assert [record.step for record in validated(sink)] == [3, 7, 11]
    assert all(record.training["forwards"] == 2 for record in validated(sink))
    assert all(record.errors == () for record in sink.records)
    assert all(record.module("projection.fcs.1").stats["grad_norm"] > 0 for record in trained(sink))


def test_loss_accuracy_and_learning_rate_are_those_of_the_batch(sink) -> None:
    trainer, losses = build(data_processor=processor()), []
    with watch(trainer, [sink], every=1):
        train(trainer, losses)
    assert [record.step for record in trained(sink)] == list(range(3 * BATCHES))
    assert [record.summary["loss"] for record in trained(sink)] == pytest.approx(losses)
    rates = [rate for record in trained(sink) for rate in record.training["learning_rates"]]
    assert rates == [1e-2] * BATCHES + [5e-3] * BATCHES + [2.5e-3] * BATCHES
    # LpLoss sums relative errors over the samples.
    assert trained(sink)[5].accuracy.stats["relative_l2"] == pytest.approx(losses[5] / 4, rel=0.5)


def test_a_resumed_training_goes_on_at_its_step(sink, tmp_path: Path) -> None:
    trainer = build(epochs=2)
    with watch(trainer, [sink], every=3):
        train(trainer, save_every=1, save_dir=tmp_path)
    assert [record.step for record in trained(sink)] == [0, 3, 6]
    # The library loads files with functions and classes in them by torch's safe loader.
    with torch.serialization.safe_globals([torch.nn.functional.gelu, SpectralConv]):
        train(build(epochs=3), resume_from_dir=tmp_path)  # without telemetry
        resumed = build(epochs=3)
        with watch(resumed, [sink], every=3):
            train(resumed, resume_from_dir=tmp_path)
    first = resumed.start_epoch * BATCHES
    assert first > 0
    assert [record.step for record in trained(sink)[3:]] == [
        step for step in range(first, 12) if step % 3 == 0
    ]


def test_a_subclass_that_grows_its_model_is_recorded(sink) -> None:
    trainer = build(IncrementalFNOTrainer, incremental_grad=False, incremental_loss_gap=True)
    with watch(trainer, [sink], every=4):
        train(trainer)
    assert [record.step for record in trained(sink)] == [0, 4, 8]


def test_nothing_is_left_after_an_exception(sink, hooks_of) -> None:
    trainer = build()
    before = hooks_of(trainer.model)
    failing = list(Named(12, 0))
    failing[9] = {"x": torch.zeros(1, 8, 8), "y": torch.zeros(2, 8, 8)}
    optimizer = AdamW(trainer.model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(RuntimeError), watch(trainer, [sink], every=1):
        trainer.train(DataLoader(failing, batch_size=4), {}, optimizer, scheduler)
    assert hooks_of(trainer.model) == before
    assert not {"train_one_batch", "train_one_epoch"} & set(vars(trainer))
    assert not optimizer._optimizer_step_post_hooks
    assert [record.step for record in trained(sink)] == [0, 1]


def test_a_watched_trainer_can_be_copied_and_pickled(sink) -> None:
    trainer = build(epochs=1)
    with watch(trainer, [sink], every=1):
        copies = [copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))]
    for copied in copies:
        train(copied)
    assert trained(sink) == []


def test_other_replacements_of_a_method_are_kept(sink) -> None:
    trainer = build(epochs=1)
    own = trainer.train_one_batch
    trainer.train_one_batch = own
    with watch(trainer, [sink], every=2):
        train(trainer)
    assert vars(trainer)["train_one_batch"] == own
    assert [record.step for record in trained(sink)] == [0, 2]


def test_the_trainers_own_wandb_rows_are_all_kept(alone: Path) -> None:
    import wandb

    run = wandb.init(project="test", mode="offline", dir=alone)
    trainer = build(wandb_log=True, verbose=True)
    with watch(trainer, [ft.WandbRun(run)], every=3):
        train(trainer)
    run.finish()
    wandb.teardown()
    [folder] = (alone / "wandb").glob("offline-run-*")
    rows = wandb_log.read_rows(folder)
    own = [row for row in rows if "train_err" in row]
    assert [row["_step"] for row in own] == [1, 2, 3]
    assert all("test_l2" in row for row in own)
    # The last record of each epoch: of the steps 0 and 3, of 6, and of 9.
    assert [row["checkpoint_step"] for row in rows if "checkpoint_step" in row] == [3, 6, 9]


@pytest.mark.parametrize("trainer", [None, torch.nn.Linear(1, 1)])
def test_what_is_no_trainer_is_refused(trainer) -> None:
    with pytest.raises(OptionError, match="a neuralop Trainer was expected"):
        watch(trainer)
