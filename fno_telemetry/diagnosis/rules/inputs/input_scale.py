"""Finds inputs whose scale or mean is not that of the data that the network was made for."""

from collections.abc import Iterator
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Evidence, Symptom, Topic, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord

_FOLLOWING: tuple[Topic, ...] = ("values", "gradients", "training", "accuracy", "steps")


@rule(
    about="input",
    fires_on=lambda: change_input(healthy_record(), mean=300.0, std=1.0, rms=300.0),
    silent_on=lambda: change_input(healthy_record(), mean=30.0, std=1.0, rms=30.0),
)
def input_scale(
    record: CaptureRecord,
    *,
    baseline: CaptureRecord | None = None,
    of_baseline: float = 10,
    least_offset: float = 10,
    large: float = 1000,
    small: float = 0.001,
    offset: float = 100,
) -> Iterator[Symptom]:
    """The model's input has another scale, or another mean, than in the baseline, or is not normalised.

    Layers pass the scale of their input on, so what is found in their values follows from this: dead layers
    and values that are not finite only if the input is far from the baseline's.

    Formula: let s be the rms of the model's input, and m its |mean| / std. If the baseline has an input, one
        of (a warning)
        (1) s >= `of_baseline` (10) times its value in the baseline, or <= 1 / `of_baseline` times;
        (2) m >= `least_offset` (10), and >= `of_baseline` times its value in the baseline.
        With s >= `large` (1000) times, or <= `small` (0.001) times, its value in the baseline, or with m >=
        `offset` (100), the input is far from the baseline's. Without a baseline, one of (a note)
        (3) s >= `large` (1000), or s <= `small` (0.001);
        (4) m >= `offset` (100).
    Default: the rms of other healthy samples was 0.5 to 2 times that of the baseline, and m was at most 3;
        without normalisation, s was 1,000 to 10,000 times that of the baseline, and m was hundreds.
        Without a baseline, the finding is only a note, because a network may be made for such an input.
    False alarm when: the network normalises its input itself.
    """
    place = input_place(record)
    if place is None:
        return
    known = input_place(baseline) if baseline is not None else None
    size, mean, std = (place.value(name) for name in ("rms", "mean", "std"))
    if known is None:
        if size and (size >= large or size <= small):
            message = f"is probably not normalised: its rms is {format_number(size)}"
            yield _note(place, message, {"rms": size})
        elif mean is not None and std and abs(mean) >= offset * std:
            message = "is probably not normalised: its mean is "
            message += f"{format_number(mean)} and its standard deviation {format_number(std)}"
            yield _note(place, message, {"mean": mean, "std": std})
        return
    before = known.value("rms")
    # The mean first: where it is large, it makes the rms large.
    if _is_shifted(place, known, least_offset, of_baseline):
        then = (known.value("mean"), known.value("std"))
        message = f"has mean {_show(mean)} and standard deviation {_show(std)}; in the baseline, the mean is "
        message += f"{_show(then[0])} and the standard deviation {_show(then[1])}"
        far = (_offset(place) or 0) >= offset
        evidence: Evidence = {
            "mean": mean,
            "std": std,
            "mean_of_the_baseline": then[0],
            "std_of_the_baseline": then[1],
        }
    elif size and before and not 1 / of_baseline < size / before < of_baseline:
        message = f"has rms {format_number(size)}; in the baseline it is {format_number(before)} "
        message += f"(ratio: {format_number(size / before)})"
        far = not small < size / before < large
        evidence = {"rms": size, "of_the_baseline": before}
    else:
        return
    yield Symptom(
        severity="warning",
        place=place,
        message=message,
        evidence=evidence,
        advice="The samples were probably not normalised as those of the baseline: subtract the same mean "
        "and divide by the same standard deviation as in training.",
        explains=Consequences(about=(*_FOLLOWING, "finiteness"))
        if far
        else Consequences(about=_FOLLOWING, but_not=("dead_layer",)),
    )


def _is_shifted(place: Place[Any], known: Place[Any], least: float, of_baseline: float) -> bool:
    now, before = _offset(place), _offset(known)
    return now is not None and before is not None and now >= max(least, of_baseline * before)


def _offset(place: Place[Any]) -> float | None:
    mean, std = place.value("mean"), place.value("std")
    return None if mean is None or not std else abs(mean) / std


def _show(value: float | None) -> str:
    return "unknown" if value is None else format_number(value)


def _note(place: Place[Any], message: str, evidence: Evidence) -> Symptom:
    return Symptom(
        severity="note",
        place=place,
        message=message,
        evidence=evidence,
        advice="If the network was trained on normalised samples, normalise these in the same way. To be "
        "sure, compare with a report of training samples: `baseline`.",
    )
