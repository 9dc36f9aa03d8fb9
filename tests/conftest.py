"""What many tests need: small networks, inputs with a seed of their own, lists of hooks, event files read."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

# Small tensors gain nothing from threads, which wait for one another beside another busy program. It has to
# be said before torch is imported, and holds for the programs that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs that tests start import this very clone, `support`, and the networks in it.
_TESTS = Path(__file__).parent
_FOUND = [_TESTS, _TESTS / "support", _TESTS.parent, _TESTS.parent / "cli"]
os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, _FOUND), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)

import numpy as np
import pytest
import torch
from torch import nn

from fno_telemetry import plugins
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.testing import example_record

Events = dict[str, list[tuple[int, object]]]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Weights are drawn alike in every test, and no test moves another one's random numbers."""
    with torch.random.fork_rng(devices=[]):
        if torch.cuda.is_initialized():
            torch.manual_seed(0)
        else:
            # That would note for each device from where it was called, which costs more than many a test.
            torch.default_generator.manual_seed(0)
        yield


_ADD = KeptSeries.add


@pytest.fixture(scope="session", autouse=True)
def _without_pictures() -> Iterator[None]:
    """Dashboards draw no pictures, which takes seconds for each run, but in tests of pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptSeries, "add", lambda series, record: None)
        yield


@pytest.fixture(scope="session")
def draws_pictures() -> Callable[[KeptSeries, CaptureRecord], None]:
    """What `KeptSeries.add` is outside of tests."""
    return _ADD


@pytest.fixture
def with_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashboards draw their pictures, as everywhere outside of tests."""
    monkeypatch.setattr(KeptSeries, "add", _ADD)


@pytest.fixture
def small_network() -> Callable[..., nn.Module]:
    """Build one of the built-in networks with few channels, two blocks deep."""

    def build(name: str = "fno", **arguments: object) -> nn.Module:
        blocks = {"fno_blocks": 2, "cnn_blocks": 1} if name == "fno" else {"n_blocks": 2}
        arguments = {"hidden_channels": 5, "modes": 4, "C": 1, **blocks, **arguments}
        network = plugins.load("architectures", name).build(**arguments)
        assert isinstance(network, nn.Module)
        return network

    return build


@pytest.fixture
def images() -> torch.Tensor:
    """Eight samples of one channel, 12 x 10, from smooth to rough and of different strength."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(8, 1, 12, 10, generator=generator)
    rows, columns = torch.arange(12.0)[:, None], torch.arange(10.0)
    waves = torch.stack([torch.cos(2 * torch.pi * (k * rows / 12 + columns / 10)) for k in range(8)])
    strength = torch.linspace(0.5, 2, 8)[:, None, None, None]
    return strength * (1 + waves[:, None] + 0.3 * noise)


@pytest.fixture
def hooks_of() -> Callable[[nn.Module], list[list[object]]]:
    """List every hook on every module of a model."""

    def listed(model: nn.Module) -> list[list[object]]:
        tables = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
        tables += ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs")
        tables += ("_forward_hooks_always_called",)
        return [[*getattr(m, table).items()] for m in model.modules() for table in tables]

    return listed


@pytest.fixture
def branch_numbers() -> Callable[..., dict[str, float]]:
    """The definitions of a block's numbers in float64: spectral operand s, local operand t, x and y."""

    def numbers(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64).numpy()

    def reference(s: torch.Tensor, t: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
        s, t, x, y = (numbers(tensor) for tensor in (s, t, x, y))
        space = tuple(range(2, s.ndim))
        s, t = s - s.mean(space, keepdims=True), t - t.mean(space, keepdims=True)
        s_rms, t_rms, x_rms, y_rms = (np.sqrt((abs(field) ** 2).mean()) for field in (s, t, x, y))
        return {
            "spectral_local_ratio": s_rms / t_rms,
            "spectral_share": s_rms**2 / (s_rms**2 + t_rms**2),
            "branch_cosine": (s.conj() * t).mean().real / (s_rms * t_rms),
            "branch_coherence": np.linalg.norm(s + t) / (np.linalg.norm(s) + np.linalg.norm(t)),
            "update_ratio": np.linalg.norm(y - x) / np.linalg.norm(x),
            "gain": y_rms / x_rms,
        }

    return reference


@pytest.fixture(scope="session")
def read_events() -> Callable[[Path], Events]:
    """Read every event file in a folder: tag -> [(step, value)], in the order written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    def read(folder: Path) -> Events:
        found: Events = {}
        for file in sorted(folder.glob("events.out.tfevents.*")):
            for event in LegacyEventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    kind = value.WhichOneof("value")
                    found.setdefault(value.tag, []).append((event.step, getattr(value, kind)))
        return found

    return read


@pytest.fixture(scope="session")
def examples() -> ModuleType:
    """Records made by hand."""
    return example_record


@pytest.fixture(scope="session")
def record(examples: ModuleType) -> CaptureRecord:
    return examples.example()
