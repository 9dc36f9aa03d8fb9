"""Runs and measures the batches of a capture, and counts what was run."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fno_telemetry.isolation.tensor_values import preserve_flags
from fno_telemetry.mapping.detection import count_samples
from fno_telemetry.measuring.batch_runs import BatchRun
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.measuring.measured_forwards import MeasuredForwards
from fno_telemetry.measuring.target_collector import TargetPairs
from fno_telemetry.sources.digests import InputsDigest
from fno_telemetry.tracing.nested_tensors import tensors_in


@dataclass(frozen=True)
class Counts:
    """The samples and batches that were run so far."""

    batches: int = 0
    samples: int = 0
    batch_size: int = 0
    model_seconds: float = 0.0
    digest: InputsDigest = field(default_factory=InputsDigest)


def run_batch(
    batch: Any,
    batch_run: BatchRun,
    pairs: TargetPairs,
    forwards: MeasuredForwards,
    collector: Collector,
    counts: Counts,
) -> Counts:
    """Run and measure a batch; return the updated counts."""
    selected, output = batch_run.select(batch), None

    def run(selected: Any) -> None:
        nonlocal output
        output = batch_run.run(selected, batch)

    size = count_samples(selected)
    forwards.aside("input", lambda: counts.digest.update(list(tensors_in(selected))))
    forwards.aside("input", lambda: collector.start_batch(selected, size))
    started, measured = time.perf_counter(), forwards.seconds
    with preserve_flags(tensors_in(selected)):
        forwards.run(selected, run)
    seconds = time.perf_counter() - started - (forwards.seconds - measured)
    if pairs.are_known:
        compared = pairs.find(output, batch)
        forwards.aside("target", lambda: collector.compare(*compared))
    collector.end_batch()
    return replace(
        counts,
        batches=counts.batches + 1,
        samples=counts.samples + (size or 1),
        batch_size=max(counts.batch_size, size or 1),
        model_seconds=counts.model_seconds + seconds,
    )


def digest_batches(batches: Iterable[Any], batch_run: BatchRun) -> str | None:
    """Return the digest of all that goes into the model."""
    digest = InputsDigest()
    for batch in batches:
        digest.update(list(tensors_in(batch_run.select(batch))))
    return digest.hexdigest()
