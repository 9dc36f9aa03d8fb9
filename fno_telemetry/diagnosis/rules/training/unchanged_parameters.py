"""Finds parameters that have the values of the baseline, though the network was trained since."""

from collections.abc import Iterator
from dataclasses import replace

from fno_telemetry.comparison.learning import is_untrained
from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import healthy_record
from fno_telemetry.diagnosis.places import find_module_of_all
from fno_telemetry.diagnosis.wording import join_names
from fno_telemetry.records import CaptureRecord, ParameterRecord, freeze_mapping

_MOST_NAMED = 4


def _with_parameters(**digests: str) -> CaptureRecord:
    parameters = [
        ParameterRecord(
            name=name.replace("__", "."), shape=(8,), dtype="float32", stats=freeze_mapping({}), digest=digest
        )
        for name, digest in digests.items()
    ]
    return replace(healthy_record(), parameters=tuple(parameters))


@rule(
    about="training",
    needs=("baseline",),
    fires_on=lambda: _with_parameters(head__weight="0", lifter__conv__weight="1"),
    silent_on=lambda: _with_parameters(head__weight="2", lifter__conv__weight="1"),
    against=lambda: _with_parameters(head__weight="0", lifter__conv__weight="0"),
)
def unchanged_parameters(
    record: CaptureRecord, *, baseline: CaptureRecord | None = None
) -> Iterator[Symptom]:
    """Parameters have the very values of the baseline, while others have changed.

    The reports hold a digest of every parameter, so that one report and another of before the training, or of
    an earlier step, are enough.

    Formula: of the parameters that both reports have, with the same shape, let s be those with the same
        digest. One of
        (1) s holds some of them, but not all;
        (2) s holds all of them, the baseline is of the untrained network, and the report is not: an error.
    Default: no thresholds. In healthy trainings no parameter keeps all of its values.
    False alarm when: parameters are frozen on purpose, as in fine-tuning, or training changes only few of
        more than 4,096 values, of which the digest takes an even sample.
    """
    if baseline is None:
        return
    before = {one.name: one for one in baseline.parameters}
    compared = {one.name: one.is_same_as(before[one.name]) for one in record.parameters if one.name in before}
    known = [name for name, is_same in compared.items() if is_same is not None]
    same = [name for name in known if compared[name]]
    if not same:
        return
    evidence = {"unchanged": len(same), "parameters": len(known)}
    if len(same) == len(known):
        if is_untrained(baseline) and not is_untrained(record):
            yield Symptom(
                severity="error",
                message=f"has not been trained: all {len(known)} parameters have the values of the untrained "
                "network",
                evidence=evidence,
                advice="The optimizer probably has other parameters, or the checkpoint is not that of the "
                "trained network: make the optimizer of `model.parameters()` after the model was moved or "
                "wrapped, and check which weights are saved and which keys are loaded.",
                confirm="print the norm of one parameter before and after an optimizer step.",
                explains=Consequences(about=("accuracy",)),
            )
        return
    shown = join_names(same, _MOST_NAMED)
    number = "1 parameter has" if len(same) == 1 else f"{len(same)} of {len(known)} parameters have"
    yield Symptom(
        severity="warning",
        place=find_module_of_all(record, same),
        message=f"is not trained: {number} the very values of the baseline: {shown}",
        evidence=evidence,
        advice="They are probably frozen (`requires_grad` is False), not in the optimizer, cut off from the "
        "loss by a `detach()` or a factor that stays at zero, or missing from the checkpoint. If that is not "
        "on purpose, give the optimizer all of `model.parameters()`, and load with `strict=True`.",
        confirm="compare `sum(p.numel() for group in optimizer.param_groups for p in group['params'])` with "
        "the number of parameters, and look at `requires_grad` and `grad` of these.",
        explains=Consequences(rules=("stalled_update", "identity_block")),
    )
