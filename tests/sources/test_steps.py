"""The step of a checkpoint: what training programs write, and the names of files, in the order of trust."""

import numpy as np
import pytest
import torch

from fno_telemetry.sources.checkpoints import read_checkpoint
from fno_telemetry.sources.steps import find_step

WEIGHTS = {"w": torch.ones(2)}

FILES = {
    "Lightning": ({"state_dict": WEIGHTS, "epoch": 2, "global_step": 90}, "last.ckpt", (90, "step")),
    "a loop": ({"model": WEIGHTS, "step": 70, "epoch": 0}, "ckpt_3.pt", (70, "step")),
    "Megatron": ({"model": WEIGHTS, "iteration": 33}, "model_optim_rng.pt", (33, "step")),
    "BasicSR": ({"net": WEIGHTS, "iter": 5000, "epoch": 1}, "5000.state", (5000, "step")),
    "nanoGPT": (
        {"model": WEIGHTS, "iter_num": np.int64(250), "config": {}},
        "ckpt.pt",
        (250, "step"),
    ),
    "DeepSpeed": ({"module": WEIGHTS, "global_steps": 8, "skipped_steps": 1}, "mp_rank_00.pt", (8, "step")),
    "MMEngine": ({"state_dict": WEIGHTS, "meta": {"iter": 64, "epoch": 4}}, "epoch_4.pth", (64, "step")),
    "Composer": (
        {"state": {"model": WEIGHTS, "timestamp": {"epoch": 1, "batch": 20}}, "rng": []},
        "ep1-ba20-rank0.pt",
        (20, "step"),
    ),
    "older Composer": (
        {"state": {"model": WEIGHTS, "timestamp": {"Timestamp": {"batch": 21}}}},
        "latest.pt",
        (21, "step"),
    ),
    "transformers": ({"model": WEIGHTS, "trainer_state": {"global_step": 6}}, "x.bin", (6, "step")),
    "a loop inside a key": ({"run": {"net": WEIGHTS, "step": torch.tensor(12)}}, "x.pt", (12, "step")),
    "timm": ({"state_dict": WEIGHTS, "epoch": 7, "arch": "x"}, "checkpoint-7.pth.tar", (7, "epoch")),
    "a buffer of that name": ({"w": torch.ones(2), "step": torch.tensor(5)}, "x.pt", (None, None)),
    "such a buffer in a set": (
        {"model": {"w": torch.ones(2), "iteration": torch.tensor(5)}},
        "x.pt",
        (None, None),
    ),
}


@pytest.mark.parametrize("program", FILES)
def test_the_step_is_found_where_programs_write_it(tmp_path, program):
    content, name, expected = FILES[program]
    torch.save(content, tmp_path / name)
    checkpoint = read_checkpoint(tmp_path / name)
    assert (checkpoint.step, checkpoint.step_kind) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"step": 3, "global_step": 4}, 4),
        ({"iteration": 5, "step": 6}, 6),
        ({"iter": 7, "iteration": 8}, 8),
        ({"iter_num": 9, "iter": 10}, 10),
        ({"global_steps": 11, "iter_num": 12}, 12),
        ({"meta": {"iter": 13}, "global_steps": 14}, 14),
        ({"timestamp": {"batch": 15}, "meta": {"iter": 16}}, 16),
        ({"trainer_state": {"global_step": 17}, "timestamp": {"batch": 18}}, 18),
        ({"global_step": "many", "step": 19}, 19),
        ({"step": [20], "iter": 21}, 21),
        ({"step": np.array(22)}, 22),
        ({"step": np.array([23, 24])}, None),
        ({"step": float("inf")}, None),
        ({"step": 10**30}, None),
        ({"step": 2.5}, None),
        ({"step": True}, None),
        ({"timestamp": 1_700_000_000.0}, None),
        ({"meta": None}, None),
    ],
)
def test_keys_have_an_order_and_only_counts_count(entries, expected):
    assert find_step([entries], "x.pt")[0] == expected


@pytest.mark.parametrize(
    ("name", "epoch", "expected"),
    [
        ("iter_400.pth", None, (400, "step")),
        ("net-iter00050.pth", 2, (50, "step")),
        ("iteration=12.pt", None, (12, "step")),
        ("step=9-iter=90.pt", None, (9, "step")),
        ("checkpoint-500", None, (500, "step")),
        ("checkpoint_0060.pt", None, (60, "step")),
        ("iter_2-checkpoint-3", None, (2, "step")),
        ("ckpt_100.pt", 3, (100, "step")),
        ("ckpt-5_checkpoint-4.pt", None, (4, "step")),
        ("ckpt_003.pth", 3, (3, "epoch")),
        ("checkpoint_12_5000.pt", None, (None, None)),
        ("checkpoint0003.pth", 3, (3, "epoch")),
        ("checkpoint3.pth", None, (None, None)),
        ("model_10.pth", None, (None, None)),
        ("iterate5.pt", None, (None, None)),
        ("ckpt_v2.pt", None, (None, None)),
        ("UNet.0.30.mdlus", None, (30, "epoch")),
        ("UNet.mdlus", None, (None, None)),
        ("net.2.5.pt", None, (None, None)),
    ],
)
def test_names_count_after_the_keys_of_steps_and_before_epochs(name, epoch, expected):
    entries = {} if epoch is None else {"epoch": epoch}
    assert find_step([entries], name) == expected
