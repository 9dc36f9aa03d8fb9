"""Finds parameters that have the values they started with, from one report."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_trained, is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import healthy_record
from fno_telemetry.diagnosis.initial_values import is_as_initialised, shows_training
from fno_telemetry.diagnosis.places import find_module_of_all
from fno_telemetry.diagnosis.wording import join_names
from fno_telemetry.records import CaptureRecord, ParameterRecord, ValueSample, freeze_mapping

_MOST_NAMED = 4
_UNIFORM = 1 / 3**0.5


def _with_bounds(**largest: float) -> CaptureRecord:
    """Return the healthy record with weights of shape (64, 64) that are uniform up to these bounds."""
    parameters = [
        ParameterRecord(
            name=name.replace("__", "."),
            shape=(64, 64),
            dtype="float32",
            stats=freeze_mapping({}),
            sample=ValueSample(4096, -bound, bound, _UNIFORM * bound),
        )
        for name, bound in largest.items()
    ]
    return replace(healthy_record(), parameters=tuple(parameters))


@rule(
    about="training",
    fires_on=lambda: _with_bounds(head__weight=0.3, blocks__0__local__weight=0.125),
    silent_on=lambda: _with_bounds(head__weight=0.3, blocks__0__local__weight=0.13),
)
def as_initialised(record: CaptureRecord, *, least: float = 800) -> Iterator[Symptom]:
    """Layers have the values that they started with, while others have been trained.

    PyTorch draws the weights of its layers uniformly between two bounds that follow from the shape. Training
    moves some of them beyond, so that one report tells whether a weight has moved.

    Formula: let s be the parameters of at least 128 values that are uniform between the bounds of a usual
        initialisation to the last digit, and scales of at least 4 that are all the same; let k be all those
        of which this can be told. The report looks at `least` (800) values or more of those in s, and one of
        (1) s holds some of k, or a bias or norm shows training: a warning if the network was trained, and
            otherwise a note;
        (2) s holds all of k, and nothing shows training: an error if the report says that the network was
            trained, otherwise a note.
        Trained it was if the report has a step beyond 0 or weights of a checkpoint; in (1) also if a bias is
        beyond the bounds of its start, or the weights of a norm differ.
        Scales that are all the same are enough by themselves.
    Default: `least` is 800: of so many values some eight are beyond the bounds when all move by 1 %. In
        trained healthy networks single weights of up to 300 values were within.
    False alarm when: layers are random and frozen on purpose. Not seen are weights that start normally
        distributed or at zero.
    """
    if is_untrained(record):
        return
    unused = {entry["name"] for entry in record.not_fired}
    told = [
        (one, is_start)
        for one in record.parameters
        if one.name.rpartition(".")[0] not in unused and (is_start := is_as_initialised(one)) is not None
    ]
    found = [one for one, is_start in told if is_start]
    samples = [one.sample for one in found if one.sample is not None]
    has_scale = any(sample.min == sample.max for sample in samples)
    if not found or (sum(sample.number for sample in samples) < least and not has_scale):
        return
    same = [one.name for one in found]
    evidence = {"as_initialised": len(same), "told": len(told)}
    says_trained = is_trained(record) or record.summary.get("weights") == "checkpoint"
    was_trained = shows_training(record)
    if len(same) == len(told) and not was_trained:
        yield Symptom(
            severity="error" if says_trained else "note",
            message=f"has never been trained, or hardly: {_count(len(told))} of which it can "
            f"be told {'is' if len(told) == 1 else 'are'} as initialised",
            evidence=evidence,
            advice="If it should be trained: the optimizer has other parameters (make it of "
            "`model.parameters()`, after the model was moved or wrapped), the learning rate is far too low, "
            "gradients are clipped to nothing, or the checkpoint was not loaded.",
            confirm="print the norm of one parameter before and after an optimizer step, and after loading.",
            explains=Consequences(about=("accuracy",)),
        )
        return
    shown = join_names(same, _MOST_NAMED)
    number = "1 parameter is" if len(same) == 1 else f"{len(same)} of {len(told)} parameters are"
    yield Symptom(
        severity="warning" if says_trained or was_trained else "note",
        place=find_module_of_all(record, same),
        message=f"was never trained, or hardly, or not loaded: {number} as initialised: {shown}",
        evidence=evidence,
        advice="They are probably not in the optimizer, frozen (`requires_grad` is False), cut off from the "
        "loss by a `detach()` or `no_grad`, or missing from the checkpoint. If that is not on purpose, give "
        "the optimizer all of `model.parameters()`, and load with `strict=True`.",
        confirm="look at `requires_grad` and `grad` of these in training, and at the names that "
        "`load_state_dict(…, strict=False)` returns.",
        explains=Consequences(about=("accuracy",), rules=("stalled_update", "identity_block")),
    )


def _count(parameters: int) -> str:
    return "the one parameter" if parameters == 1 else f"all {parameters} parameters"
