"""Finds operators that take fields for periodic, and targets that are not."""

from collections.abc import Iterator

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_target, healthy_record
from fno_telemetry.diagnosis.places import input_place, module_places, output_place
from fno_telemetry.diagnosis.wording import format_number
from fno_telemetry.records import CaptureRecord, TensorRecord


def _with_jumps(output: float) -> CaptureRecord:
    return add_target(healthy_record(), edge_error_ratio=2.2, target_edge_jump=5.0, output_edge_jump=output)


@rule(
    about="accuracy",
    needs=("target",),
    fires_on=lambda: _with_jumps(2.5),
    silent_on=lambda: _with_jumps(4.9),
)
def padding_missing(
    record: CaptureRecord,
    *,
    edges: float = 1.6,
    jump: float = 3,
    follows: float = 0.85,
    missed: float = 0.05,
) -> Iterator[Symptom]:
    """The target is not periodic, and an operator without padding errs at its edges.

    A Fourier layer takes the last point of an axis for the neighbour of the first one.

    Formula: the record is not of an untrained network, error_to_mean_predictor is >= `missed` (0.05), and all
        of
        (1) edge_error_ratio >= `edges` (1.6): the rms of the error in the outermost sixteenth of an axis, at
        either end, over that of the rest, for the axis where that is largest;
        (2) along that axis, target_edge_jump >= `jump` (3): the rms of the difference between both ends, over
        that between neighbours;
        (3) output_edge_jump is at most `follows` (0.85) times that: the output does not jump as the target;
        (4) the first spectral layer has as many points along every axis as the model's input.
    Default: in four tasks that are not periodic, operators without padding had a ratio of 1.9 to 2.9, the
        target jumped 4.5 times and more, and their output at most 0.82 times as much; with padding the
        output jumped 0.77 times as much and more. Periodic targets jump about 1 time.
    False alarm when: what goes on at the edges does not depend on the input that the network is given, so
        that it would miss it with padding too.
    """
    end, entered = output_place(record), input_place(record)
    stats = record.accuracy.stats if record.accuracy is not None else {}
    names = ("edge_error_ratio", "target_edge_jump", "output_edge_jump", "error_to_mean_predictor")
    ratio, of_target, of_output, error = (stats.get(name) for name in names)
    if end is None or entered is None or is_untrained(record):
        return
    if ratio is None or of_target is None or of_output is None or error is None:
        return
    spectral = next((place for place in module_places(record) if place.role == "spectral"), None)
    if spectral is None or _sizes(spectral.entry) != _sizes(entered.entry):
        return
    if error < missed or ratio < edges or of_target < jump or of_output > follows * of_target:
        return
    yield Symptom(
        severity="warning",
        place=end,
        message=f"has {format_number(ratio)} times the error at the edges of the fields, which are not "
        f"periodic: opposite edges of the target differ {format_number(of_target)} times as much as "
        f"neighbours, those of the output {format_number(of_output)} times",
        evidence={
            "edge_error_ratio": ratio,
            "target_edge_jump": of_target,
            "output_edge_jump": of_output,
            "error_to_mean_predictor": error,
        },
        advice=f"{spectral.name} takes its input for periodic: pad the fields before the first spectral "
        "layer, by a quarter of their size or so, and crop them at the same ends after the last one "
        "(`domain_padding` in neuraloperator).",
        confirm="with padding, output_edge_jump should be that of the target, and the error smaller.",
        explains=Consequences(rules=("error_above_modes",)),
    )


def _sizes(entry: TensorRecord) -> tuple[int, ...]:
    return tuple(entry.shape[axis] for axis in entry.spatial_axes)
