"""Finds dropouts that drop most of what they are given, and those that are on in a report."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record
from fno_telemetry.diagnosis.places import module_places
from fno_telemetry.diagnosis.wording import format_percent
from fno_telemetry.records import CaptureRecord

_CLASSES = frozenset({"Dropout", "Dropout1d", "Dropout2d", "Dropout3d"})


def _dropping(rms: float, *, trains: bool) -> CaptureRecord:
    record = change_module(healthy_record(), "lifter.conv", class_name="Dropout", rms=rms, input_rms=1.0)
    return add_training(record) if trains else record


@rule(
    about="values",
    fires_on=lambda: _dropping(3.2, trains=True),
    silent_on=lambda: _dropping(1.05, trains=True),
)
def strong_dropout(record: CaptureRecord, *, most: float = 0.5, least: float = 0.02) -> Iterator[Symptom]:
    """A dropout drops most of its values in training, or it is on where the network is only used.

    Formula: a dropout that is on divides what it keeps by 1 - p, so that its output has 1 / sqrt(1 - p) times
        the rms of its input. With p from that, one of
        (1) in a training step, p >= `most` (0.5);
        (2) in a report, or in validation, p >= `least` (0.02).
    Default: `most` is 0.5, the largest share that papers use; regression of fields is trained with 0.1 or
        less. `least` is 0.02, above what rounding makes of a dropout that is off.
    False alarm when: the network is meant to be random, such as for an estimate of its uncertainty.
    """
    trains = record.stage == "train"
    for place in module_places(record):
        rms, entered = place.value("rms"), place.value("input_rms")
        if place.entry.class_name not in _CLASSES or not rms or not entered:
            continue
        share = 1 - min((entered / rms) ** 2, 1.0)
        if share < (most if trains else least):
            continue
        if trains:
            message = f"drops {format_percent(share)} of its values in each training step"
            advice = (
                "The share was probably meant as what is kept: `p` of a dropout is the share that is "
                "dropped. Use 0.1 or less for fields, or none."
            )
        else:
            message = f"is on in this report: it drops {format_percent(share)} of its values"
            advice = (
                "The network was probably captured, or is used, in training mode: call `model.eval()` "
                "before. A dropout that is called as a function needs `training=self.training`."
            )
        yield Symptom(
            severity="warning",
            place=place,
            message=message,
            evidence={"dropped": share, "rms": rms, "input_rms": entered},
            advice=advice,
            confirm="print `module.p` and `module.training` of the dropout.",
            explains=Consequences(about=("accuracy",)),
        )
