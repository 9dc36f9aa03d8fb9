"""What the report and the messages of the command say of input files and checkpoints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fno_telemetry.architectures.fno import CascadedFNOGenerator

COUNTS = np.random.default_rng(5).poisson(300, (3, 8, 8)).astype(np.int32)
COUNTS[:, 2:4] = -1
COUNTS[0, 7, 7] = 2**31 - 1


def test_the_report_says_what_was_checked_and_which_numbers_are_marks(folder: Path, run: Any) -> None:
    torch.save({"train": [{"x": torch.from_numpy(COUNTS)}], "split": object}, "fields.pt")
    network = CascadedFNOGenerator(C=1, hidden_channels=4, fno_blocks=1, cnn_blocks=1, modes=2)
    torch.save(network.state_dict(), "old.ckpt", _use_new_zipfile_serialization=False)
    result = run(
        *("capture", "--input", "fields.pt", "--key", "train.0.x", "--output", "out", "--diagnose"),
        *("--checkpoint", "old.ckpt"),
    )
    assert result.code == 0, result.err
    report = json.loads(Path("out/activation_report.json").read_text())
    assert "1 value is 2147483647, the largest of int32: masked or saturated pixels?" in report["warnings"]
    assert "48 counts are negative (down to -1): masked pixels?" in report["warnings"]
    assert any("looks like raw counts" in finding["message"] for finding in report["findings"])
    provenance = report["provenance"]
    assert provenance["input"]["key"] == "train.0.x"
    assert provenance["input"]["checksums"] == "correct"
    assert provenance["checkpoint"]["checksums"] == "not checked: the file has no checksums"
