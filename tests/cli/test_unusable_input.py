"""What cannot be used: exit code 2, one line that names it, and nothing on the disk."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fno_telemetry import plugins


class Payload:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trace",)


def hostile() -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Payload()}, "w.pt")


def hostile_by_hand() -> None:
    Path("w.pt").write_bytes(pickle.dumps(Payload()))


def of_another_network() -> None:
    torch.save({"linear.weight": torch.ones(2, 2)}, "w.pt")


def of_other_channels() -> None:
    torch.save(
        plugins.load("architectures", "fno").build(hidden_channels=4, modes=3, C=4).state_dict(), "w.pt"
    )


def arrays(**named: np.ndarray) -> Callable[[], None]:
    return lambda: np.savez("d.npz", **named)


def text(name: str, content: str) -> Callable[[], None]:
    return lambda: Path(name).write_text(content)


MAP = 'schema = "fno-telemetry-map/1"\n'
BAD_ROLE = MAP + '[[modules]]\nname = "lifter"\nrole = "boss"'
BAD_NAME = MAP + '[[modules]]\nname = "lift"'
NEWER = '{"schema": "fno-telemetry/99"}'
EMPTY = '"layers": {}, "modules": [], "blocks": []'
BAD_VALUE = f'{{"schema": "fno-telemetry/1", "summary": {{"n_parameters": "many"}}, {EMPTY}}}'
INPUT = ("--input", "train.npz")
MODEL = (*INPUT, "--model")
BATCHES = ("--model", "cli_networks:Plain", "--batches")
CONFIG = (*INPUT, "--config", "c.toml")

# What is typed after `capture --output out`, what must stand in the line, and what is there beforehand.
CAPTURE: list[tuple[tuple[object, ...], tuple[str, ...], Callable[[], None] | None]] = [
    ((), ("--input", "--batches"), None),
    ((*INPUT, "--batches", "a:b"), ("--input", "--batches"), None),
    (("--input", "nowhere.npz"), ("nowhere.npz", "no such file"), None),
    (("--input", "."), (".", "folder"), None),
    (("--input", "d.npz"), ("d.npz", "text"), text("d.npz", "diffraction")),
    (("--input", "d.npz"), ("d.npz", "git lfs pull"), text("d.npz", "version https://git-lfs.github.com/spec/v1")),
    (("--input", "d.npz"), ("d.npz", "x, y", "--key"), arrays(x=np.ones((2, 8, 8)), y=np.ones(2))),
    (("--input", "d.npz"), ("d.npz", "--axes"), arrays(diffraction=np.ones((8, 8, 5)))),
    (("--input", "d.npz"), ("d.npz", "complex"), arrays(diffraction=np.ones((2, 8, 8), np.complex64))),
    (("--input", "d.npz", "--axes", "NCL"), ("d.npz", "--model"), arrays(diffraction=np.ones((2, 1, 8)))),
    ((*INPUT, "--key", "diff3d"), ("diff3d", "diffraction"), None),
    ((*INPUT, "--axes", "NXY"), ("--axes", "train.npz"), None),
    ((*INPUT, "--axes", "NCHW"), ("--axes", "train.npz"), None),
    ((*INPUT, "--batch-size", 0), ("--batch-size 0", "1"), None),
    ((*INPUT, "--max-samples", -1), ("--max-samples -1", "1"), None),
    ((*INPUT, "--max-samples", "many"), ("--max-samples", "integer", "--help"), None),
    ((*INPUT, "--seed", -1), ("--seed -1", "0"), None),
    ((*INPUT, "--device", "gpu0"), ("--device 'gpu0'", "cpu, cuda"), None),
    ((*INPUT, "--device", ""), ("--device ''", "cpu, cuda"), None),
    ((*INPUT, "--device", "cuda:77"), ("--device 'cuda:77'", "not available"), None),
    ((*INPUT, "--device", "meta"), ("--device 'meta'", "not available"), None),
    ((*INPUT, "--architecture", "unet"), ("'unet'", "fno_vanilla"), None),
    ((*MODEL, "a:b", "--architecture", "fno"), ("--architecture", "--model"), None),
    ((*MODEL, "cli_networks"), ("'cli_networks'", "package.module:attribute"), None),
    ((*MODEL, "cli_nowhere:a"), ("cli_nowhere", "no module"), None),
    ((*MODEL, "cli_networks:Plane"), ("cli_networks:Plane", "Plain"), None),
    ((*MODEL, "cli_networks:raising"), ("cli_networks:raising", "ValueError: no weights anywhere"), None),
    ((*MODEL, "cli_networks:leaving"), ("cli_networks:leaving", "SystemExit"), None),
    ((*MODEL, "cli_networks:number"), ("cli_networks:number", "int", "torch.nn.Module"), None),
    ((*MODEL, "cli_networks:Plain", "--set", "depth=2"), ("cli_networks:Plain", "depth"), None),
    ((*MODEL, "cli_networks:Raising"), ("Raising", "RuntimeError: first line", "(1, 1, 16, 16)"), None),
    ((*MODEL, "cli_networks:Raising", "--set", "error=EOFError"), ("Raising", "EOFError"), None),
    ((*MODEL, "cli_networks:Raising", "--set", "error=SystemExit"), ("Raising", "SystemExit: 0"), None),
    ((*MODEL, "cli_networks:Scaled"), ("Scaled", "scale"), None),
    ((*INPUT, "--key", "difraction"), ("--key", "Did you mean diffraction? Known: diffraction"), None),
    ((*INPUT, "--architecture", "hybird"), ("'hybird'. Did you mean hybrid? Known",), None),
    ((*INPUT, "--set", "modez=3"), ("argument 'modez'. Did you mean modes? Known: in_channels",), None),
    ((*INPUT, "--set", "modes"), ("--set 'modes'", "key=value"), None),
    ((*INPUT, "--set", "modes=[1"), ("--set modes=[1", "TOML"), None),
    ((*INPUT, "--set", "depth=2"), ("'depth'", "hidden_channels"), None),
    ((*INPUT, "--set", "modes=0"), ("modes=0", "at least 1"), None),
    ((*INPUT, "--set", "C=3"), ("C=3", "--set"), None),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt", "no such file"), None),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt",), text("w.pt", "weights")),
    ((*INPUT, "--checkpoint", "train.npz"), ("train.npz", "no known architecture"), None),
    ((*INPUT, "--checkpoint", "."), ("folder", "train.npz"), None),
    ((*INPUT, "--weights", "ema"), ("--weights ema", "--checkpoint"), None),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt", "no known architecture"), hostile),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt", "--trust-checkpoint"), hostile_by_hand),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt", "no known architecture", "--model"), of_another_network),
    ((*INPUT, "--checkpoint", "w.pt"), ("w.pt", "4 channels"), of_other_channels),
    ((*MODEL, "cli_networks:Plain", "--checkpoint", "w.pt"), ("w.pt", "linear.weight"), of_another_network),
    ((*INPUT, "--trust-checkpoint"), ("--trust-checkpoint", "--checkpoint"), None),
    ((*INPUT, "--allow-missing"), ("--allow-missing", "--checkpoint"), None),
    ((*INPUT, "--map", "m.toml"), ("m.toml", "no such file"), None),
    ((*INPUT, "--map", "m.toml"), ("m.toml", "TOML"), text("m.toml", "[[")),
    ((*INPUT, "--map", "m.toml"), ("m.toml", "'boss'", "spectral"), text("m.toml", BAD_ROLE)),
    ((*INPUT, "--map", "m.toml"), ("'lift'", "lifter"), text("m.toml", BAD_NAME)),
    ((*INPUT, "--layers", "convs.*"), ("--layers 'convs.*'", "near it"), None),
    ((*INPUT, "--exclude", "convs.*"), ("--exclude 'convs.*'", "near it"), None),
    ((*INPUT, "--exclude", "*"), ("leave no module",), None),
    ((*INPUT, "--sink", "tensorbord"), ("'tensorbord'", "json, history, tensorboard"), None),
    ((*INPUT, "--sink", "json,"), ("--sink 'json,'", "empty"), None),
    ((*INPUT, "--output-json-name", "a/b.json"), ("--output-json-name 'a/b.json'", ".json"), None),
    ((*INPUT, "--output-json-name", "../b.json"), ("--output-json-name", ".json"), None),
    ((*INPUT, "--output-json-name", "b.txt"), ("--output-json-name 'b.txt'", ".json"), None),
    ((*INPUT, "--output-json-name", "b" * 250 + ".json"), ("--output-json-name", "200 bytes"), None),
    ((*BATCHES, "cli_networks:tuples"), ("2 positional arguments: (2, 1, 8, 8) float32, () float32.",), None),
    ((*BATCHES, "cli_networks:dicts"), ("2 keyword arguments: x=(2, 1, 8, 8) float32, scale=",), None),
    ((*MODEL, "cli_networks:Raising"), ("one argument: (1, 1, 16, 16) float32 (samples, ch", "--axes"), None),
    ((*MODEL, "cli_networks:Raising", "--set", "error=MemoryError"), ("lower --batch-size",), None),
    ((*BATCHES, "cli_networks:absent"), ("--batches", "cli_networks:absent"), None),
    ((*BATCHES, "cli_networks:raising"), ("--batches cli_networks:raising", "no weights anywhere"), None),
    ((*BATCHES, "cli_networks:leaving"), ("--batches cli_networks:leaving", "SystemExit"), None),
    ((*BATCHES, "cli_networks:breaking"), ("--batches cli_networks:breaking", "the disk is gone"), None),
    ((*BATCHES, "cli_networks:nothing"), ("--batches cli_networks:nothing", "no batch"), None),
    ((*BATCHES, "cli_networks:arrays"), ("--batches cli_networks:arrays", "list", "tensor"), None),
    ((*BATCHES, "cli_networks:NOT_BATCHES"), ("--batches cli_networks:NOT_BATCHES", "int"), None),
    ((*BATCHES, "cli_networks:tensors", "--batch-size", 2), ("--batch-size", "--batches"), None),
    ((*BATCHES, "cli_networks:tensors", "--axes", "NHW"), ("--axes", "--input"), None),
    (("--batches", "cli_networks:NOT_BATCHES"), ("NOT_BATCHES",), None),
    ((*MODEL, "cli_networks:Unused", "--strict"), ("--strict", "spare", "forward was not called"), None),
    ((*MODEL, "cli_networks:Counting"), ("nothing could be measured", "signs"), None),
    ((*INPUT, "--colour"), ("--colour", "--help"), None),
    ((*INPUT, "--seed"), ("--seed", "argument"), None),
    ((*INPUT, "more"), ("more", "--help"), None),
    (CONFIG, ("--config c.toml", "no such file"), None),
    (CONFIG, ("--config c.toml", "TOML"), text("c.toml", "input = [")),
    (CONFIG, ("--config c.toml", "UTF-8"), lambda: Path("c.toml").write_bytes(b"\xff")),
    (CONFIG, ("--config c.toml", "'colour'", "max_samples"), text("c.toml", "colour = 1")),
    (CONFIG, ("--config c.toml", "'config'"), text("c.toml", 'config = "d.toml"')),
    (CONFIG, ("--config c.toml", "seed = 1.5", "whole number"), text("c.toml", "seed = 1.5")),
    (CONFIG, ("--config c.toml", "seed = true", "whole number"), text("c.toml", "seed = true")),
    (CONFIG, ("--config c.toml", "max-samples", "whole number"), text("c.toml", 'max-samples = "x"')),
    (CONFIG, ("--config c.toml", 'force = "yes"', "true or false"), text("c.toml", 'force = "yes"')),
    (CONFIG, ("--config c.toml", "device = 0", "text"), text("c.toml", "device = 0")),
    (CONFIG, ("--config c.toml", 'layers = ["a", 1]', "list of texts"), text("c.toml", 'layers = ["a", 1]')),
    (CONFIG, ("--config c.toml", "key", "text"), text("c.toml", 'key = "a\\u0000"')),
    (CONFIG, ("'depth'", "hidden_channels"), text("c.toml", "set = { depth = 2 }")),
]  # fmt: skip


def _spelled(value: object) -> str:
    """Return an id that is the same in every process: what is called before has an address in its text."""
    return "" if callable(value) else str(value)[:60]


@pytest.mark.parametrize(("line", "words", "before"), CAPTURE, ids=_spelled)
def test_a_capture_that_cannot_be_is_refused_in_one_line(run, folder, line, words, before):
    if before is not None:
        before()
    there = set(folder.rglob("*"))
    result = run("capture", "--json", "--output", "out", *line)
    assert result.code == 2
    assert result.err.startswith("fno-telemetry: ")
    message = result.err.removeprefix("fno-telemetry: ")
    assert message.count("\n") == 1
    assert [word for word in words if word not in message] == []
    assert result.document == {"schema": "fno-telemetry-error/1", "error": message.rstrip("\n")}
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == there


OUTPUTS: list[tuple[tuple[str, ...], tuple[str, ...], Callable[[], object] | None]] = [
    ((), ("--output", "required"), None),
    (("--output",), ("--output", "argument"), None),
    (("--output", "train.npz"), ("train.npz", "not a folder"), None),
    (("--output", "train.npz/out"), ("train.npz/out", "not a folder"), None),
    (("--output", "x" * 300), ("too long",), None),
    (("--output", "."), ("activation_report.json", "folder"), Path("activation_report.json").mkdir),
    (("--output", "."), ("activation_report.log", "folder"), Path("activation_report.log").mkdir),
    (("--output", "."), ("activation_report.json exists", "--force"), Path("activation_report.json").touch),
]


@pytest.mark.parametrize(("line", "words", "before"), OUTPUTS, ids=_spelled)
def test_an_output_that_cannot_be_written_is_refused_before_anything_runs(run, folder, line, words, before):
    if before is not None:
        before()
    there = set(folder.rglob("*"))
    # The network would print; it is not even imported.
    result = run("capture", *INPUT, "--model", "cli_loud_network:Loud", *line)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in result.err] == []
    assert set(folder.rglob("*")) == there


def test_a_read_only_folder_is_refused(folder):
    (folder / "closed").mkdir(mode=0o555)
    folder.chmod(0o755)
    # The superuser may write anywhere, so the command is run as nobody where the tests are run as root.
    # The first call is refused as well; it imports all that nobody may not read.
    program = """
import contextlib, os
from fno_telemetry_cli.app import main
with contextlib.suppress(SystemExit), contextlib.redirect_stderr(open(os.devnull, "w")):
    main(["capture", "--output", "train.npz"])
if os.geteuid() == 0:
    os.seteuid(65534)
main(["capture", "--input", "train.npz", "--output", "closed/out"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        "fno-telemetry: --output closed/out: cannot be written: .*permission.*\n", done.stderr, re.I
    )
    assert list((folder / "closed").iterdir()) == []


MAP_AND_VIEW: list[tuple[tuple[str, ...], tuple[str, ...], Callable[[], object] | None]] = [
    (("map",), ("--input", "--batches"), None),
    (("map", *INPUT, "--output", "."), ("--output .", "folder"), None),
    (("map", *INPUT, "--output", "train.npz"), ("train.npz exists", "--force"), None),
    (("map", *INPUT, "--output", "train.npz/m.toml"), ("train.npz/m.toml", "not a folder"), None),
    (("map", *INPUT, "--model", "cli_networks:Raising"), ("Raising", "first line"), None),
    (("view",), ("REPORT|DIR", "--help"), None),
    (("view", "a", "b"), ("b", "--help"), None),
    (("view", "r.json"), ("r.json", "no such file", "capture"), None),
    (("view", "."), (".", "no report in this folder", "capture"), None),
    (("view", "train.npz"), ("train.npz", "cannot be read"), None),
    (("view", "r.json"), ("r.json", "not JSON"), text("r.json", '{"schema": "fno-tele')),
    (("view", "r.json"), ("r.json", "NaN"), text("r.json", '{"a": NaN}')),
    (("view", "r.json"), ("r.json", "not an fno-telemetry report"), text("r.json", '{"a": 1}')),
    (("view", "."), ("r.json", "not an fno-telemetry report"), text("r.json", '{"a": 1}')),
    (("view", "r.json"), ("r.json", "list"), text("r.json", "[]")),
    (("view", "r.json"), ("r.json", "newer version", "update"), text("r.json", NEWER)),
    (("view", "r.json"), ("r.json", "summary"), text("r.json", '{"schema": "fno-telemetry/1"}')),
    (("view", "r.json"), ("r.json", "n_parameters is \"many\""), text("r.json", BAD_VALUE)),
    (("view", "r.json", "--port", "80"), ("--port 80", "--tensorboard"), None),
    (("view", "r.json", "--tensorboard"), ("r.json", "no such file"), None),
    (("view", "r.json", "--tensorboard", "--port", "66000"), ("--port", "65535"), None),
    (("draw",), ("draw", "--help"), None),
    (("--colour",), ("--colour", "--help"), None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words", "before"), MAP_AND_VIEW, ids=_spelled)
def test_other_commands_refuse_in_one_line_too(run, folder, line, words, before):
    if before is not None:
        before()
    there = set(folder.rglob("*"))
    result = run(*line)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in result.err] == []
    assert {path for path in folder.rglob("*") if "__pycache__" not in path.parts} == there


def test_a_control_character_in_an_error_does_not_reach_the_terminal(run, folder):
    result = run("capture", "--input", "a\x1b[31m.npz", "--output", "out")
    assert result.code == 2
    assert "\x1b" not in result.err
