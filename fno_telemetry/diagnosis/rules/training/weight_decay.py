"""Finds weights that shrink over a training."""

from collections.abc import Iterator, Sequence
from statistics import median

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record, make_series
from fno_telemetry.diagnosis.places import module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number, format_percent
from fno_telemetry.records import CaptureRecord


def _series(*norms: float) -> list[CaptureRecord]:
    records = []
    for norm in norms:
        record = healthy_record()
        for module in record.modules:
            if module.stats.get("weight_norm") is not None:
                record = change_module(record, module.name, weight_norm=norm)
        records.append(add_training(record, loss=1.0))
    return make_series(*records)


@rule(
    about="training",
    needs=("training",),
    fires_on=lambda: _series(3.0, 1.0, 0.3),
    silent_on=lambda: _series(3.0, 2.8, 2.7),
)
def weight_decay(
    series: Sequence[CaptureRecord], *, shrunk: float = 0.5, part: float = 0.5
) -> Iterator[Symptom]:
    """The weights of most layers shrink, as weight decay makes them.

    Formula: for each layer let q be weight_norm in the last record over that in the first one. In a share of
        `part` (0.5) of the layers or more, q <= `shrunk` (0.5).
    Default: in healthy trainings weights kept 0.8 times their norm and more.
    False alarm when: weights that start large are meant to shrink.
    """
    first, last = (
        {place.name: value for place, value in select_defined(module_places(record), "weight_norm")}
        for record in (series[0], series[-1])
    )
    ratios = [last[name] / norm for name, norm in first.items() if norm and name in last]
    small = [ratio for ratio in ratios if ratio <= shrunk]
    if len(ratios) < 2 or len(small) < part * len(ratios):
        return
    yield Symptom(
        severity="warning",
        record=series[-1],
        message=f"loses its weights: in {format_percent(len(small) / len(ratios))} of the layers their norm "
        f"fell to half or less since {series[0].spelled_step} (median {format_number(median(ratios))} times)",
        evidence={"weight_norm_ratio": median(ratios), "layers": len(ratios), "shrunk": len(small)},
        advice="Weight decay is probably too strong: lower it, or use AdamW, in which it does not depend on "
        "the gradients; common values are 1e-5 to 1e-2.",
        confirm="without weight decay the norms should stay, and the loss fall further.",
        explains=Consequences(about=("accuracy", "values", "weights", "gradients", "steps")),
    )
