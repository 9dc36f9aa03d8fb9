"""Folders that hold what the blocks of the documents take for granted."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fno_telemetry as ft
import simulate_diffraction
from fno_telemetry_cli.app import main
from support.documents import NETWORKS, Shell, example_network, plain_commands, run_shell


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with samples, checkpoints of a healthy network, reports of it and of a broken one."""
    folder = tmp_path_factory.mktemp("prepared")
    diffraction = simulate_diffraction.simulate(8, 32, seed=0)
    for name in ("train.npz", "diffraction.npz"):
        np.savez(folder / name, diffraction=diffraction)
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "checkpoints").mkdir()
    network = example_network()
    for step, names in ((10, ["a.ckpt"]), (20, ["b.ckpt", "model.ckpt"])):
        checkpoint = {"state_dict": network.state_dict(), "global_step": step}
        for name in (*names, f"checkpoints/step={step}.ckpt"):
            torch.save(checkpoint, folder / name)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.01)
    batches = list(torch.from_numpy(diffraction).unsqueeze(1).split(4))
    record = ft.capture(network, batches)
    for name in ("before/activation_report.json", "after/activation_report.json", "healthy.json"):
        ft.JsonFile(folder / name).write(record)
    with torch.no_grad():
        for parameter in network.lifter.conv2.parameters():
            parameter.zero_()
    ft.JsonFile(folder / "broken/activation_report.json").write(ft.capture(network, batches))
    return folder


@pytest.fixture(scope="session")
def prepared_with_capture(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after README's first capture: `out` holds a report, a TensorBoard run and a W&B run."""
    folder = tmp_path_factory.mktemp("captured") / "folder"
    shutil.copytree(prepared, folder)
    done = run_shell(
        "fno-telemetry capture --input train.npz --output out --checkpoint model.ckpt"
        " --sink json,tensorboard,wandb",
        folder,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def folder_of(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Path]:
    """Give each document a folder of its own, which all of its blocks share."""
    made: dict[Path, Path] = {}

    def folder(document: Path) -> Path:
        if document not in made:
            # README captures into `out` itself; every other document starts where README ends.
            source = "prepared" if document.name == "README.md" else "prepared_with_capture"
            made[document] = tmp_path_factory.mktemp("document") / "work"
            shutil.copytree(request.getfixturevalue(source), made[document])
        return made[document]

    return folder


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Run a script where the test runs; commands that need no shell run in this process, which is quick."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.syspath_prepend("")  # as the installed command finds modules of the working folder

    def run(script: str) -> subprocess.CompletedProcess[str]:
        commands = plain_commands(script)
        if commands is None:
            return run_shell(script, Path.cwd())
        capfd.readouterr()
        code = 0
        for arguments in commands:
            with pytest.raises(SystemExit) as end:
                main(arguments)
            code = int(end.value.code or 0)
            if code:
                break
        return subprocess.CompletedProcess(script, code, *capfd.readouterr())

    return run
