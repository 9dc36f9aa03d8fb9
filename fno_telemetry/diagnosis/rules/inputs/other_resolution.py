"""Finds tests at another resolution than the training, with a larger error."""

from collections.abc import Iterator

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, change_input, healthy_record
from fno_telemetry.diagnosis.places import Place, input_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, TensorRecord


def _at(size: int, error: float) -> CaptureRecord:
    record = change_input(healthy_record(), shape=(8, 1, size, size))
    return add_target(record, error_to_mean_predictor=error)


@rule(
    about="input",
    needs=("target", "test"),
    fires_on=lambda: _at(32, 0.1),
    silent_on=lambda: _at(64, 0.1),
    against=lambda: _at(64, 0.8),
)
def other_resolution(
    record: CaptureRecord, *, test: CaptureRecord | None = None, times: float = 2
) -> Iterator[Symptom]:
    """The test has another resolution than the training, and a larger error.

    A network that depends on the grid, by its local branch, its padding or a wrong normalisation of its
    transform, gives other fields on another grid.

    Formula: the sizes of the spatial axes of the model's input differ, and error_to_mean_predictor of the
        test is >= `times` (2) times that of the training samples.
    Default: networks that do not depend on the grid had at most 1.3 times the error.
    False alarm when: the test has structures that the grid of the training cannot hold.
    """
    place, other = input_place(record), input_place(test) if test is not None else None
    learned, tested = (
        one.accuracy.stats.get("error_to_mean_predictor") if one and one.accuracy else None
        for one in (record, test)
    )
    if place is None or other is None or learned is None or tested is None or tested < times * learned:
        return
    before, after = _sizes(place), _sizes(other)
    if before == after or not before:
        return
    spelled = [" x ".join(map(str, sizes)) for sizes in (before, after)]
    yield Symptom(
        severity="warning",
        place=place,
        message=f"has another resolution in the test: {spelled[0]} points in training, {spelled[1]} in the "
        f"test, where the error is {format_number(tested)} times that of the mean (in training "
        f"{format_number(learned)})",
        evidence={
            "points": before[-1],
            "points_of_the_test": after[-1],
            "error_to_mean_predictor": learned,
            "of_the_test": tested,
        },
        advice="The network depends on the grid: look for kernels larger than 1 x 1, padding in points, "
        "resampling, and the normalisation of the transform; or resample the test to the training's grid.",
        confirm="capture the same samples at both resolutions, and compare the layers by frequency.",
        explains=Consequences(about=("accuracy",)),
    )


def _sizes(place: Place[TensorRecord]) -> tuple[int, ...]:
    return tuple(place.entry.shape[axis] for axis in place.entry.spatial_axes)
