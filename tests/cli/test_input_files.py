"""What the report and the messages of the command say of input files and checkpoints."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fno_telemetry.architectures.fno import CascadedFNOGenerator

FIELDS = np.random.default_rng(5).random((3, 8, 8), dtype=np.float32)


def test_the_report_says_which_numbers_were_checked(folder: Path, run: Any) -> None:
    torch.save({"train": [{"x": torch.from_numpy(FIELDS)}], "split": object}, "fields.pt")
    network = CascadedFNOGenerator(C=1, hidden_channels=4, fno_blocks=1, cnn_blocks=1, modes=2)
    torch.save(network.state_dict(), "old.ckpt", _use_new_zipfile_serialization=False)
    result = run(
        *("capture", "--input", "fields.pt", "--key", "train.0.x", "--output", "out"),
        *("--checkpoint", "old.ckpt"),
    )
    assert result.code == 0, result.err
    provenance = json.loads(Path("out/activation_report.json").read_text())["provenance"]
    assert provenance["input"]["key"] == "train.0.x"
    assert provenance["input"]["checksums"] == "correct"
    assert provenance["checkpoint"]["checksums"] == "not checked: the file has no checksums"
