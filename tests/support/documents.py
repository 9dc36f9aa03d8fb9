"""The documents of the repository, a shell for their blocks, and what those take for granted."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fno_telemetry import plugins
from support import ready_python
from support.wandb_surroundings import environment

Shell = Callable[[str], subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS += sorted((ROOT / "docs").glob("*.md"))

# The networks of docs/operators.md, whose structure the tests of operators hold.
NETWORKS = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests" / "mapping" / "operators")!r}]
import torch
from test_channels_last import Patches
from test_paired_lists import Network as paired
from test_shared_transforms import Spherical as spherical

def patches():
    return Patches(8, double_skip=True)

def fields():
    yield torch.rand(3, 1, 12, 10)

def images():
    yield torch.rand(3, 2, 16, 12)

def sphere():
    yield torch.rand(3, 2, 8, 12)

def mean_square(output, batch):
    return output.square().mean()

def itself(output, batch):
    return output, output
"""


def document_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run lines of bash in a folder, without the user's own W&B; the first failure ends them."""
    programs = f"{ready_python.programs()}:{Path(sys.executable).parent}"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    given = environment(home, OMP_NUM_THREADS="1", COLUMNS="140")
    given["PATH"] = f"{programs}:{given['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=given,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def plain_commands(script: str) -> list[list[str]] | None:
    """Return the arguments of each `fno-telemetry` in a script of nothing else; None where it needs a shell.

    W&B leaves processes and settings, so it gets a process of its own too.
    """
    lines = [shlex.split(line, comments=True) for line in script.replace("\\\n", " ").splitlines()]
    lines = [words for words in lines if words]
    needs_a_shell = re.search(r"[$`|&;<>]|wandb", re.sub(r"(^|\s)#.*", "", script))
    if needs_a_shell or any(words[0] != "fno-telemetry" for words in lines):
        return None
    return [arguments for _, *arguments in lines]


def example_network() -> torch.nn.Module:
    """Return a small `fno` for images of one channel."""
    torch.manual_seed(0)
    build = plugins.load("architectures", "fno").build
    network = build(hidden_channels=8, modes=4, C=1, fno_blocks=2, cnn_blocks=1)
    assert isinstance(network, torch.nn.Module)
    return network
