"""Finds input channels whose scale is far from that of the others."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import change_input, healthy_record
from fno_telemetry.diagnosis.places import input_place
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord


@rule(
    about="input",
    fires_on=lambda: change_input(healthy_record(), channel_rms=(1.0, 1.2, 9000.0)),
    silent_on=lambda: change_input(healthy_record(), channel_rms=(1.0, 0.3, 3.0)),
)
def input_channel_scale(
    record: CaptureRecord, *, ratio: float = 50, of_one: float = 20, missed: float = 0.5
) -> Iterator[Symptom]:
    """Some channels of the model's input have a scale far above that of the others.

    What a layer makes of a loud channel hides the others: the network sees coordinates in metres, or a
    pressure in pascal, and nothing else.

    Formula: let s be the rms of each channel of the model's input, without channels that are zero. Both
        (1) max s >= `ratio` (50) · min s;
        (2) max s >= `of_one` (20), since networks are made for values of about 1.
        Where a target is known, also: the network is not untrained, and its error is at least `missed` (0.5)
        times that of predicting the mean, since networks that normalise each channel themselves learn well.
    Default: channels of inputs that were normalised one by one differed by less than 10. Coordinates in
        metres, one channel left in pascal and one divided by a deviation of zero were 1,000 and more times
        the others.
    False alarm when: the network normalises each channel itself, and no target is known.
    """
    place = input_place(record)
    error = record.accuracy.stats.get("error_to_mean_predictor") if record.accuracy is not None else None
    if place is None or (record.accuracy is not None and is_untrained(record)):
        return
    if error is not None and error < missed:
        return
    known = [(index, float(s)) for index, s in enumerate(place.entry.channel_rms or ()) if s]
    if not known:
        return
    smallest, largest = (choose(s for _, s in known) for choose in (min, max))
    if largest < max(ratio * smallest, of_one):
        return
    loud = [str(index) for index, s in known if s * ratio >= largest]
    which = f"channel {loud[0]} has" if len(loud) == 1 else f"channels {join_names(loud)} have"
    yield Symptom(
        severity="warning",
        place=place,
        message=f"has channels of different scale: {which} rms {format_number(largest)}"
        f"{'' if len(loud) == 1 else ' and less'}, others {format_number(smallest)}",
        evidence={
            "largest_rms": largest,
            "smallest_rms": smallest,
            "channels": join_names(loud),
            "error_to_mean_predictor": error,
        },
        advice="The loud channels were probably not normalised, or divided by a standard deviation of almost "
        "zero: subtract the mean and divide by the standard deviation of each channel separately, and scale "
        "coordinates to 0 to 1.",
        confirm="`x.std(dim=(0, 2, 3))` of a training batch should be about 1 for every channel.",
        explains=Consequences(about=("values", "gradients", "accuracy", "training")),
    )
