"""What people use instead, in the way its documentation shows; each measures far less than a capture."""

import contextlib
import importlib.util
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from measured_networks import Subject
from measured_networks import make as make_subject
from torch import nn

Measure = Callable[[torch.Tensor], object]


@contextmanager
def hooks_on_leaves(model: nn.Module, measure: Measure) -> Iterator[None]:
    """Call `measure` with the output of every module that contains no other one."""

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            measure(output.detach())

    handles = [m.register_forward_hook(hook) for m in model.modules() if not list(m.children())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def three_quantiles(output: torch.Tensor) -> None:
    """What the script that this project replaces does: `torch.quantile` of |x|, three times."""
    magnitude = output.abs().flatten()[: 2**24 - 1]
    for q in (0.5, 0.95, 0.99):
        torch.quantile(magnitude, q)


def histogram_of_64(output: torch.Tensor) -> torch.Tensor:
    """What `wandb.watch(log="all")` computes of a tensor: 64 equal bins between its extremes."""
    return torch.histc(output.flatten(), bins=64)


def _with_hooks(subject: Subject, measure: Measure) -> Callable[[], object]:
    def run() -> None:
        with hooks_on_leaves(subject.model, measure):
            subject.model(subject.batch)

    return run


def transform(output: torch.Tensor) -> None:
    """The least that any spectrum costs: one Fourier transform of the output."""
    if output.ndim > 2:
        torch.fft.rfftn(output, dim=tuple(range(2, output.ndim)))


def _transforms(subject: Subject) -> Callable[[], object]:
    """Transform what every module returns, as a capture does, each tensor once."""

    def run() -> None:
        seen: dict[int, torch.Tensor] = {}

        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and id(output) not in seen:
                seen[id(output)] = output
                transform(output)

        handles = [module.register_forward_hook(hook) for module in subject.model.modules()]
        try:
            subject.model(subject.batch)
        finally:
            for handle in handles:
                handle.remove()

    return run


def _tensorboard(subject: Subject) -> Callable[[], object]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tempfile.mkdtemp(prefix="fno_telemetry_benchmark_"))
    return _with_hooks(subject, lambda output: writer.add_histogram("leaf", output, 0))


def _torchlens(subject: Subject) -> Callable[[], object]:
    import torchlens

    return lambda: torchlens.trace(subject.model, subject.batch)


def _msprobe(subject: Subject) -> Callable[[], object]:
    """Statistics of every module, written to a file."""
    from msprobe.pytorch import PrecisionDebugger

    folder = Path(tempfile.mkdtemp(prefix="fno_telemetry_benchmark_"))
    settings = {"scope": [], "list": [], "data_mode": ["all"], "summary_mode": "statistics"}
    config = {"task": "statistics", "dump_path": str(folder), "rank": [], "step": [], "level": "L0"}
    (folder / "config.json").write_text(json.dumps(config | {"statistics": settings}))
    debugger = PrecisionDebugger(config_path=str(folder / "config.json"))

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            debugger.start(model=subject.model)
            subject.model(subject.batch)
            debugger.stop()
            debugger.step()

    return run


ALTERNATIVES: Mapping[str, tuple[str, Callable[[Subject], Callable[[], object]]]] = {
    "rfftn of every output, nothing else": ("torch", _transforms),
    "torch.quantile of magnitudes, three times, in each leaf": (
        "torch",
        lambda subject: _with_hooks(subject, three_quantiles),
    ),
    "torch.histc of each leaf, as wandb.watch": ("torch", lambda s: _with_hooks(s, histogram_of_64)),
    "SummaryWriter.add_histogram of each leaf": ("tensorboard", _tensorboard),
}
# These packages replace functions of torch and do not put them back. Each is therefore measured in a process
# of its own, together with the forward that it is compared with.
APART: Mapping[str, tuple[str, Callable[[Subject], Callable[[], object]]]] = {
    "TorchLens trace": ("torchlens", _torchlens),
    "msprobe statistics of every module": ("msprobe", _msprobe),
}


def installed(subject: Subject) -> dict[str, Callable[[], object]]:
    """Return the alternatives that can run in this process."""
    return {name: make(subject) for name, (package, make) in ALTERNATIVES.items() if _is_installed(package)}


def measure_apart(network: str, runs: int) -> dict[str, float | None]:
    """Return for each of the others its time over that of the forward; None if it is not installed."""
    ratios: dict[str, float | None] = {}
    for name, (package, _) in APART.items():
        ratios[name] = None
        if _is_installed(package):
            command = [sys.executable, __file__, name, network, str(runs)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            ratios[name] = float(done.stdout.splitlines()[-1])
    return ratios


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def main(name: str, network: str, runs: int) -> None:
    """Print the time of one of the others over that of the forward: the median of all rounds but one."""
    torch.set_num_threads(1)
    subject = make_subject(network)
    run, ratios = APART[name][1](subject), []
    with torch.no_grad():
        for _ in range(runs + 1):
            times = []
            for action in (lambda: subject.model(subject.batch), run):
                start = time.process_time()
                action()
                times.append(time.process_time() - start)
            ratios.append(times[1] / times[0])
    print(statistics.median(ratios[1:]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
