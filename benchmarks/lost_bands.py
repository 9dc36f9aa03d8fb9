"""Whether `diagnose` names the block in which a band is lost, and the band; a table of docs/diagnosis.md.

    python benchmarks/lost_bands.py [--write docs/diagnosis.md] [--seeds 11]

Networks of five families are trained briefly. What one block of them returns then loses low, middle or high
frequencies, those of its spectral and of its local branch and of its skip alike: three bands in two blocks
each, thirty faults.
"""

import argparse
import contextlib
import copy
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import fno_telemetry as ft  # noqa: E402 - the path comes first
from benchmarks.natural_failures.networks.written_fno import WrittenFNO  # noqa: E402
from fno_telemetry import plugins  # noqa: E402

BEGIN, END = "<!-- lost bands: begin -->", "<!-- lost bands: end -->"
SIZE, TRAINING_SAMPLES, HELD_OUT, STEPS, BATCH, RATE = 32, 32, 8, 100, 8, 4e-3
WIDTH, MODES = 16, 12

BANDS: Mapping[str, tuple[float, float]] = {
    "low (a high-pass)": (0.0, 1 / 16),
    "middle (a band-stop)": (1 / 16, 1 / 8),
    "high (a low-pass)": (1 / 8, 1.0),
}
"""What is lost: from above the first frequency to the second one, in cycles per grid point."""


def _neuralop(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from neuralop import models

        return getattr(models, name)(in_channels=1, out_channels=2, hidden_channels=WIDTH, **settings)

    return make


class BandStop(nn.Module):
    """Takes frequencies out of (B, C, H, W) by a convolution with as many points as the field has."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        kernel = torch.fft.ifft2(_passes(SIZE, SIZE, low, high).float()).real
        self.register_buffer("kernel", kernel.roll((SIZE // 2, SIZE // 2), (0, 1)).flip(0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W)."""
        margins = (SIZE // 2 - 1, SIZE // 2) * 2
        kernel = self.kernel.expand(x.shape[1], 1, SIZE, SIZE)
        return nn.functional.conv2d(nn.functional.pad(x, margins, "circular"), kernel, groups=x.shape[1])


def _passes(height: int, width: int, low: float, high: float) -> torch.Tensor:
    """Return which coefficients (H, W) are not in low < |f| <= high."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    frequency = (rows[:, None] ** 2 + columns[None, :] ** 2).sqrt()
    return ~((frequency > low) & (frequency <= high))


def plant_in_module(path: str, call: int = 0) -> "Plant":
    """Return what takes frequencies out of all that a module returns at one of its calls."""

    def plant(network: nn.Module, low: float, high: float) -> None:
        number = [0]

        def restart(_: nn.Module, __: object) -> None:
            number[0] = 0

        def stop(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor | None:
            here, number[0] = number[0] == call, number[0] + 1
            if not here:
                return None
            passes = _passes(*output.shape[-2:], low, high)
            return torch.fft.ifft2(torch.fft.fft2(output) * passes).real

        network.register_forward_pre_hook(restart)
        network.get_submodule(path).register_forward_hook(stop)

    return plant


def plant_in_branches(layer: int) -> "Plant":
    """Return what masks the weights of a spectral branch, and filters what the local branch returns."""

    def plant(network: nn.Module, low: float, high: float) -> None:
        spectral = network.get_submodule(f"conv{layer}")
        passes = _passes(SIZE, SIZE, low, high)
        with torch.no_grad():
            spectral.weights1.mul_(passes[:MODES, :MODES])
            spectral.weights2.mul_(passes[-MODES:, :MODES])
        local = network.get_submodule(f"w{layer}")
        setattr(network, f"w{layer}", nn.Sequential(local, BandStop(low, high)))

    return plant


Plant = Callable[[nn.Module, float, float], None]
"""Takes the frequencies in low < |f| <= high out of one block."""


@dataclass(frozen=True)
class Family:
    """How a network is made, and two of its blocks, as the report names them."""

    make: Callable[[], nn.Module]
    blocks: tuple[tuple[str, Plant], tuple[str, Plant]]
    channels_last: bool = False
    five_axes: bool = False


FAMILIES: Mapping[str, Family] = {
    "fno": Family(
        lambda: plugins.load("architectures", "fno").build(
            C=1, modes=MODES, hidden_channels=WIDTH, fno_blocks=4, cnn_blocks=1
        ),
        (
            ("fno_blocks.1", plant_in_module("fno_blocks.1")),
            ("fno_blocks.3", plant_in_module("fno_blocks.3")),
        ),
        five_axes=True,
    ),
    "FNO": Family(
        _neuralop("FNO", n_modes=(2 * MODES,) * 2, n_layers=4),
        (
            ("fno_blocks@1", plant_in_module("fno_blocks", 1)),
            ("fno_blocks@3", plant_in_module("fno_blocks", 3)),
        ),
    ),
    "TFNO": Family(
        _neuralop("TFNO", n_modes=(2 * MODES,) * 2, n_layers=4, factorization="tucker", rank=0.5),
        (("fno_blocks", plant_in_module("fno_blocks")), ("fno_blocks@2", plant_in_module("fno_blocks", 2))),
    ),
    "UNO": Family(
        _neuralop(
            "UNO",
            n_layers=4,
            uno_out_channels=[WIDTH, WIDTH, WIDTH, WIDTH],
            uno_n_modes=[[2 * MODES] * 2] * 4,
            uno_scalings=[[1, 1]] * 4,  # half of the resolution would lose high frequencies by itself
            channel_mlp_skip="linear",
        ),
        (
            ("fno_blocks.0", plant_in_module("fno_blocks.0")),
            ("fno_blocks.3", plant_in_module("fno_blocks.3")),
        ),
    ),
    "written by hand": Family(
        lambda: WrittenFNO(1, 2, 2, WIDTH, MODES, 4),
        (("#1", plant_in_branches(1)), ("#3", plant_in_branches(3))),
        channels_last=True,
    ),
}


@dataclass(frozen=True)
class Lost:
    """What came of one planted fault."""

    family: str
    band: str
    block: str
    change: float  # the error over that before
    found: bool  # `missing_band` speaks
    right_band: bool
    right_block: bool
    finding: str


def make_samples(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return fields (N, 1, H, W) with all frequencies, and (N, 2, H, W): smoothed and not, bent and not."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, 1, SIZE, SIZE, generator=generator)
    frequency = torch.fft.fftfreq(SIZE)[:, None] ** 2 + torch.fft.rfftfreq(SIZE)[None, :] ** 2
    fields = torch.fft.irfft2(torch.fft.rfft2(noise) / (frequency + 1e-3) ** 0.5, s=(SIZE, SIZE))
    x = fields / fields.std()
    smooth = nn.functional.avg_pool2d(nn.functional.pad(x, (2, 2, 2, 2), "circular"), 5, stride=1)
    return x, torch.cat((x - 0.5 * smooth, torch.tanh(x) + 0.2 * x), 1)


def batches_of(
    family: Family, x: torch.Tensor, y: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield pairs in the layout of the family."""
    for some, wanted in zip(x.split(BATCH), y.split(BATCH), strict=True):
        yield (some.movedim(1, -1), wanted.movedim(1, -1)) if family.channels_last else (some, wanted)


def predict(family: Family, output: torch.Tensor) -> torch.Tensor:
    """Return what is compared with the target."""
    return output[:, :, :, 0].permute(0, 3, 1, 2) if family.five_axes else output


def train(family: Family, seed: int) -> nn.Module:
    """Return a network after some steps of Adam."""
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):  # neuraloperator prints what it makes
        network = family.make()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    batches = [*batches_of(family, *make_samples(TRAINING_SAMPLES, seed))]
    for step in range(STEPS):
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        nn.functional.mse_loss(predict(family, network(x)), y).backward()
        optimizer.step()
    return network.eval()


def capture(family: Family, network: nn.Module, seed: int) -> ft.CaptureRecord:
    """Capture a network on samples that it was not trained on, with their targets."""
    return ft.capture(
        network,
        [*batches_of(family, *make_samples(HELD_OUT, 1000 + seed))],
        inputs=0,
        target=1,
        prediction=lambda output, batch: (predict(family, output), batch[1]),
        summary={"weights": "given"},
    )


def judge(name: str, seed: int) -> Iterator[Lost]:
    """Yield what comes of each band in each of the two blocks."""
    family = FAMILIES[name]
    healthy = train(family, seed)
    before = _error(capture(family, healthy, seed))
    for (band, (low, high)), (block, plant) in product(BANDS.items(), family.blocks):
        broken = copy.deepcopy(healthy)
        plant(broken, low, high)
        record = capture(family, broken, seed)
        found = [one for one in ft.diagnose(record) if one.rule == "missing_band" and one.severity != "note"]
        first = found[0] if found else None
        yield Lost(
            name,
            band,
            block,
            _error(record) / before,
            first is not None,
            first is not None and _is_band(first, low, high),
            first is not None and first.layer == block,
            str(first or ""),
        )


def _error(record: ft.CaptureRecord) -> float:
    error = record.accuracy.stats["error_to_mean_predictor"] if record.accuracy is not None else None
    if error is None:
        raise ValueError("the samples have no target")
    return float(error)


def _is_band(finding: ft.Finding, low: float, high: float) -> bool:
    """Whether a finding names these frequencies, and no others."""
    first, last = finding.evidence["from_frequency"], finding.evidence["to_frequency"]
    # The corners of a square grid are beyond 1/2.
    return first == low and (last == high or min(float(last), high) > 0.5)


def table(found: Sequence[Lost]) -> Iterator[str]:
    """Yield Markdown: by family and band, how often the band and the block are named."""
    yield "| family | lost band | planted | error, times | band right | block right |"
    yield "|---|---|---:|---:|---:|---:|"
    groups: dict[tuple[str, str], list[Lost]] = {}
    for one in found:
        groups.setdefault((one.family, one.band), []).append(one)
    for (family, band), members in groups.items():
        yield _row(f"{family} | {band}", members)
    yield _row("**all** | ", found)


def _row(title: str, members: Sequence[Lost]) -> str:
    changes = sorted(one.change for one in members)
    bands, blocks = sum(one.right_band for one in members), sum(one.right_block for one in members)
    return (
        f"| {title} | {len(members)} | {changes[0]:.2g} to {changes[-1]:.2g} | {bands} of {len(members)} "
        f"| {blocks} of {len(members)} |"
    )


def main() -> None:
    """Measure, print the table and what was missed, and put the table into the document when told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", default="11")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--write", type=Path, help="a document with the two marks to put the table between")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # neuraloperator's own, of what it does with complex numbers
    seeds, families = map(int, given.seeds.split(",")), given.families.split(",")
    found = [one for seed in seeds for name in families for one in judge(name, seed)]
    for one in found:
        if not (one.right_band and one.right_block):
            print(f"missed: {one}")
    text = "\n".join(table(sorted(found, key=lambda one: families.index(one.family))))
    print(text)
    if given.write:
        before, begin, rest = given.write.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{given.write} does not have the marks {BEGIN} and {END}")
        given.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
