"""Finds parameters that training does not move."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from fno_telemetry.diagnosis.contract import Consequences, Symptom, rule
from fno_telemetry.diagnosis.example_records import add_training, healthy_record, make_series
from fno_telemetry.diagnosis.places import find_module_of_all, module_places, select_defined
from fno_telemetry.diagnosis.wording import format_number, join_names
from fno_telemetry.records import CaptureRecord, ParameterRecord, Value

_MOST_NAMED = 4


def _series(**moved: float) -> list[CaptureRecord]:
    parameters = {name.replace("__", "."): {"moved": value} for name, value in moved.items()}
    records = [add_training(healthy_record(), parameters) for _ in range(3)]
    return make_series(*records)


@rule(
    about="training",
    needs=("training",),
    fires_on=lambda: _series(head__weight=0.0),
    silent_on=lambda: _series(head__weight=0.01),
)
def parameters_stand_still(
    series: Sequence[CaptureRecord],
    *,
    least: float = 1e-4,
    steps: float = 10,
    nearly_all: float = 0.6,
    slow: float = 3e-5,
) -> Iterator[Symptom]:
    """Parameters do not move, although the network is trained.

    What does not move is told by the distance from the values before the first recorded step, so this needs a
    history of `watch`. The gradient tells the reason: a parameter with a gradient that does not move was not
    given to the optimizer; one without was frozen, or the loss does not depend on it.

    Formula: let m be `moved` = ‖w - w0‖ / ‖w0‖ of a parameter in the last record, w0 being its values before
        the first recorded step. At least `steps` (10) steps after the first record, one of
        (1) m = 0 for at least one parameter;
        (2) m < `least` (1e-4) for a share of `nearly_all` (0.6) of the parameters or more: an error;
        (3) the median of update_to_weight over the layers is <= `slow` (3e-5) in every record: an error.
        Where m = 0 for some parameters and m >= `least` for all others, it is (1), however many there are.
    Default: in healthy training no parameter moved by less than 1e-4 in a few dozen steps, and the median
        update was 1e-3 to 3e-2 of the weights. With a rate far too low, or gradients clipped to a tiny norm,
        it was 1e-6.
    False alarm when: parameters are frozen on purpose, as in fine-tuning.
    """
    first, last = series[0], series[-1]
    if first.step is None or last.step is None or last.step - first.step < steps:
        return
    known = [(one, float(m)) for one in last.parameters if (m := one.stats.get("moved")) is not None]
    if not known:
        return
    still = [one for one, moved in known if moved == 0]
    hardly = [one for one, moved in known if moved < least]
    update = _largest_update(series)
    evidence: dict[str, Any] = {
        "moved": median([moved for _, moved in known]),
        "still": len(still),
        "parameters": len(known),
    }
    is_slow = update is not None and update <= slow
    moves_in_part = still and len(still) == len(hardly) < len(known)
    if (len(hardly) >= nearly_all * len(known) or is_slow) and not moves_in_part:
        evidence |= {"below_least": len(hardly), "update_to_weight": update, "learning_rate": _rate(last)}
        yield Symptom(
            severity="error",
            record=last,
            message=f"hardly learns: {_spell_moves(evidence['moved'], len(known))} since "
            f"{first.spelled_step}",
            evidence=evidence,
            advice=_advise_on_all(last, len(still) == len(known)),
            confirm="one optimizer step should change a weight by 1e-4 to 1e-2 of its size: print that.",
            explains=Consequences(about=("accuracy",), rules=("trend", "loss_stopped")),
        )
    elif still:
        names = [one.name for one in still]
        number = "1 parameter has" if len(names) == 1 else f"{len(names)} of {len(known)} parameters have"
        yield Symptom(
            severity="warning",
            record=last,
            place=find_module_of_all(last, names),
            message=f"is not trained: {number} not moved since {first.spelled_step}: "
            f"{join_names(names, _MOST_NAMED)}",
            evidence=evidence | {"gradient": _gradient(last, still)},
            advice=_advise_on_part(last, still, known),
            confirm="compare `sum(p.numel() for group in optimizer.param_groups for p in group['params'])` "
            "with the number of parameters, and look at `requires_grad` of these.",
            explains=Consequences(
                rules=(
                    "stalled_update",
                    "identity_block",
                    "spectral_branch_weak",
                    "spectral_branch_dead",
                    "trend",
                )
            ),
        )


def _spell_moves(moved: float, parameters: int) -> str:
    if moved == 0:
        return "most parameters have not moved at all"
    return f"half of the {parameters} parameters moved by less than {format_number(moved)} of their size"


def _largest_update(series: Sequence[CaptureRecord]) -> float | None:
    """Return the largest median over the layers of update_to_weight; None where it is not known."""
    medians = []
    for record in series:
        updates = [value for _, value in select_defined(module_places(record), "update_to_weight")]
        if updates:
            medians.append(median(updates))
    return max(medians, default=None)


def _rate(record: CaptureRecord) -> float | None:
    rates = record.training.get("learning_rates") or ()
    return max(rates, default=None)


def _advise_on_all(record: CaptureRecord, none_moved: bool) -> str:
    rate = _rate(record)
    if none_moved:
        return (
            "The optimizer probably has other parameters: those of a copy, or from before the model was "
            "moved or wrapped. Make the optimizer after that, of `model.parameters()`."
        )
    known = f" (it is {format_number(rate)})" if rate is not None else ""
    return (
        f"The learning rate is probably far too low{known}, or gradients are clipped to a tiny norm: raise "
        "the rate, and print the norm that `clip_grad_norm_` returns, before clipping."
    )


def _advise_on_part(
    record: CaptureRecord, still: Sequence[ParameterRecord], known: Sequence[tuple[ParameterRecord, float]]
) -> str:
    is_complex = [one.dtype.startswith("complex") for one in still]
    if all(is_complex) and all(one in still for one, _ in known if one.dtype.startswith("complex")):
        return (
            "No complex parameter moves: the optimizer was probably given real parameters only, or it cannot "
            "handle complex ones. Give it `model.parameters()`, or store them as real pairs."
        )
    gradient = _gradient(record, still)
    if gradient == "zero":
        return (
            "Their gradient is zero: something between them and the loss is multiplied by zero, such as a "
            "layer scale or a gate that starts at zero. Start it at a small value."
        )
    if gradient == "none":
        return (
            "They get no gradient: they are frozen (`requires_grad` is False), or a `detach()`, `no_grad` or "
            "`.data` cuts them off from the loss. If that is not on purpose, remove it."
        )
    return (
        "They are probably not in the optimizer: it was given the parameters of other parts only. Give it "
        "all of `model.parameters()`."
    )


def _gradient(record: CaptureRecord, still: Sequence[ParameterRecord]) -> str | None:
    """Return whether the parameters have a gradient: "some", "zero" or "none"; None where that is unknown."""
    norms = {module.name: module.stats.get("grad_norm") for module in record.modules}
    found = [_norm(one, norms) for one in still]
    if all(norm is None for norm in (*norms.values(), *found)):
        return None
    if any(found):
        return "some"
    return "none" if all(norm is None for norm in found) else "zero"


def _norm(parameter: ParameterRecord, of_modules: Mapping[str, Value]) -> Value:
    """Return the norm of the gradient of a parameter, or else of all parameters of its module."""
    own = parameter.stats.get("grad_norm")
    return of_modules.get(parameter.name.rpartition(".")[0]) if own is None else own
