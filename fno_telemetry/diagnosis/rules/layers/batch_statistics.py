"""Finds batch norms whose running statistics are not those of the samples."""

import math
from collections.abc import Iterator
from typing import Any

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_module, healthy_record
from fno_telemetry.diagnosis.places import Place, module_places
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord


def _normalised_to(rms: float) -> CaptureRecord:
    return change_module(
        healthy_record(), "lifter.conv", class_name="BatchNorm2d", rms=rms, weight_norm=4.0, input_rms=1.0
    )


@rule(about="values", fires_on=lambda: _normalised_to(6.0), silent_on=lambda: _normalised_to(1.1))
def batch_statistics(record: CaptureRecord, *, times: float = 2.0) -> Iterator[Symptom]:
    """A batch norm does not normalise: its running statistics are not those of the samples.

    In training a batch norm divides by the statistics of its batch, so that its output has an rms of
    ‖weights‖ / sqrt(channels), weights and biases together. Later it uses the running ones, and returns the
    same only if these are those of its input.

    Formula: in a BatchNorm or SyncBatchNorm of a report that is neither of a training step nor untrained, let
        r be the rms of the output over weight_norm / sqrt(channels). r >= `times` (2), or r <= 1 / `times`.
    Default: healthy trained networks had r from 0.9 to 1.2.
    False alarm when: the samples are of another kind than those of the training on purpose, or the
        network is new, so that nothing has run through it yet.
    """
    if record.stage == "train" or is_untrained(record):
        return
    for place in module_places(record):
        rms, expected = place.value("rms"), _find_expected(place)
        if rms is None or expected is None or 1 / times < rms / expected < times:
            continue
        yield Symptom(
            severity="warning",
            place=place,
            message=f"does not normalise: its output has rms {format_number(rms)}, with its weights and the "
            f"statistics of these samples it would be {format_number(expected)}",
            evidence={"rms": rms, "expected_rms": expected, "input_rms": place.value("input_rms")},
            advice="Its running mean and variance are probably not those of the data: check its momentum, "
            "that batches were not tiny, that the weights were loaded with their buffers, and that the "
            "samples are normalised as in training.",
            confirm="in `model.train()` the error of the same samples should be far smaller.",
            explains=Consequences(about=("values", "accuracy")),
        )
        return  # what follows it has other inputs than in training


def _find_expected(place: Place[Any]) -> float | None:
    """Return the rms that a batch norm has in training, None for any other layer."""
    norm = place.value("weight_norm")
    shape = place.entry.shape
    if "BatchNorm" not in place.entry.class_name or not norm or len(shape) < 2 or not shape[1]:
        return None
    return float(norm) / math.sqrt(shape[1])
