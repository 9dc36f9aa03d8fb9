"""Small records made by hand, with only what a comparison looks at."""

import math
from collections.abc import Callable

import pytest

from fno_telemetry.records import (
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    LogHistogram,
    ModuleRecord,
    freeze_mapping,
)
from fno_telemetry.statistics.histograms import LOG_EDGES

HEALTHY = {
    "nan_count": 0,
    "inf_count": 0,
    "finite_fraction": 1.0,
    "sample_variation": 0.2,
    "dead_channel_fraction": 0.0,
    "constant_channel_fraction": 0.0,
    "negative_fraction": 0.5,
    "zero_fraction": 0.0,
    "low_frequency_fraction": 0.7,
    "high_frequency_fraction": 0.1,
}


def log_histogram(scale: float) -> LogHistogram:
    """One thousand values within two bins around `scale`, zeros apart."""
    counts = [0] * (len(LOG_EDGES) - 1)
    place = math.floor((math.log10(scale) - LOG_EDGES[0]) * 4)
    counts[place], counts[place + 1] = 600, 400
    return LogHistogram(LOG_EDGES, tuple(counts), 0, 0, 10)


@pytest.fixture(scope="session")
def make_module() -> Callable[..., ModuleRecord]:
    def make(
        name: str, order: int = 0, rms: float = 1.0, role: str = "other", **stats: object
    ) -> ModuleRecord:
        return ModuleRecord(
            name=name,
            call=0,
            item=None,
            order=order,
            parent=None,
            class_name="Conv2d",
            role=role,
            shape=(8, 4, 16, 16),
            dtype="float32",
            spatial_axes=(2, 3),
            values_of="x",
            stats=FrozenMapping({**HEALTHY, "rms": rms, **stats}),
            log_histogram=log_histogram(rms),
        )

    return make


@pytest.fixture(scope="session")
def make_record(make_module: Callable[..., ModuleRecord]) -> Callable[..., CaptureRecord]:
    def make(
        *modules: ModuleRecord,
        step: int | None = None,
        digest: str = "a",
        samples: int = 8,
        kind: str | None = "step",
        blocks: tuple[BlockRecord, ...] = (),
    ) -> CaptureRecord:
        chosen = modules or tuple(make_module(f"layer{index}", index) for index in range(4))
        return CaptureRecord(
            summary=freeze_mapping(
                {
                    "n_samples": samples,
                    "checkpoint_step": step,
                    "step_kind": kind if step is not None else None,
                }
            ),
            layers=FrozenMapping({}),
            modules=chosen,
            blocks=blocks,
            input=None,
            output=None,
            outputs=(),
            provenance=freeze_mapping({"input": {"digest": digest}}),
        )

    return make
