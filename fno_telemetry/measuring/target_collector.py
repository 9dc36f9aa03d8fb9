"""Compares what a model returned with the target of each batch, and measures the target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fno_telemetry.errors import InputError, OptionError
from fno_telemetry.mapping.compared_layouts import KnownOutput, find_compared_layout
from fno_telemetry.mapping.layouts import Place
from fno_telemetry.measuring.accumulators import MemoryBudget, States, TensorAccumulator
from fno_telemetry.measuring.activation_cache import ActivationCache
from fno_telemetry.measuring.batch_layouts import BatchLayouts
from fno_telemetry.measuring.losses import Loss
from fno_telemetry.measuring.statistic_set import StatisticSet
from fno_telemetry.records import AccuracyRecord, FrozenMapping, TensorRecord
from fno_telemetry.sources.batch_advice import suggest_prediction, suggest_target
from fno_telemetry.sources.batch_parts import BatchParts
from fno_telemetry.sources.batch_words import describe_parts, describe_value
from fno_telemetry.statistics.activation import dtype_name, unmeasurable
from fno_telemetry.statistics.contract import OF_MODEL, Known
from fno_telemetry.statistics.low_frequencies import LowFrequencies
from fno_telemetry.statistics.named_losses import NAMED_LOSSES
from fno_telemetry.statistics.subjects import Comparison
from fno_telemetry.tracing.nested_tensors import tensors_in
from fno_telemetry.wording import describe_error, hint_at_names

Prediction = Callable[[Any, Any], tuple[torch.Tensor, torch.Tensor]]
"""`prediction(output, batch)` returns what is compared: (prediction, target)."""

_PREDICTION = "`prediction` is a function (output, batch) -> (prediction, target)"


@dataclass(frozen=True)
class TargetPairs:
    """Finds what is compared: an output and the target, or what a function makes of both."""

    parts: BatchParts
    prediction: Prediction | None = None

    @property
    def are_known(self) -> bool:
        """Whether there is a target to compare with."""
        return self.prediction is not None or bool(self.parts.target)

    def find(self, output: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (prediction, target), two tensors of one shape; nothing is broadcast or converted.

        InputError, one line, for tensors that cannot be compared; OptionError for a function that raises.
        """
        if self.prediction is None:
            prediction, target = next(tensors_in(output), None), self.parts.select_target(batch)
            if prediction is None:
                raise InputError(
                    f"the model returned {describe_value(output)}, which holds no tensor to compare with the "
                    f"target; {_PREDICTION} that takes it from the output"
                )
            named = "output of the model", "target"
        else:
            prediction, target = _call(self.prediction, output, batch)
            named = "prediction", "target that `prediction` returned"
        if (why := explain_misfit(prediction, target, named)) is not None:
            advice = "" if self.prediction else f". {self._advise(output, target, batch)}"
            raise InputError(f"{why}{advice}. {describe_parts(batch)}")
        return prediction, target

    def _advise(self, output: Any, target: torch.Tensor, batch: Any) -> str:
        """Return what would make the output and the target alike."""
        chosen = {str(part) for part in (*(self.parts.inputs or ()), *self.parts.target)}
        other = suggest_target(batch, next(tensors_in(output)), chosen)
        if other is not None and self.parts.inputs is not None:
            return f"Part {other!r} of the batch has the shape of the output: that is `target={other!r}`"
        found = suggest_prediction(output, target)
        return f"{_PREDICTION} that are alike" + (f", such as {found}" if found else "")

    def make_loss(self, name: str) -> Loss:
        """Return the loss of this name, between what is compared; OptionError if there is none."""
        if name not in NAMED_LOSSES:
            known = hint_at_names(name, NAMED_LOSSES)
            raise OptionError(
                f"`loss` {name!r} is not known. {known} Or give a function (output, batch) -> scalar"
            )
        if not self.are_known:
            raise OptionError(
                f"`loss` {name!r} compares the output with a target, and none is given; for batches of "
                "(x, y) that is `inputs=0, target=1`"
            )
        compare = NAMED_LOSSES[name]
        return lambda output, batch: compare(*self.find(output, batch))


class TargetCollector:
    """Merges the states of the target, and of the output compared with it, over the batches."""

    def __init__(
        self, statistics: StatisticSet, budget: MemoryBudget, cache: ActivationCache, layouts: BatchLayouts
    ) -> None:
        self._statistics = statistics
        self._cache = cache
        self._layouts = layouts
        self._target = TensorAccumulator(States(statistics, budget))
        self.compared = States(statistics, budget)  # of the output and the target together
        self.is_known = False  # whether there was a target, also one that could not be compared

    def take(self, target: TensorAccumulator) -> None:
        """Take what was measured of a target elsewhere."""
        self._target = target
        self.is_known = True

    @property
    def accumulators(self) -> list[TensorAccumulator]:
        """What is measured of the target; empty without one."""
        return [self._target] if self._target.dtype else []

    def add(
        self,
        outputs: Sequence[KnownOutput],
        prediction: torch.Tensor,
        target: torch.Tensor,
        entered: LowFrequencies | None = None,
    ) -> None:
        """Measure the pair of one batch, which fits together; `outputs` are those of the model.

        `entered` are low frequencies of what went in.
        """
        self.is_known = True
        target = target.to(prediction.device)
        place = Place("target", "")
        layout = find_compared_layout(tuple(target.shape), outputs, self._layouts.batch_size)
        layout = layout or self._layouts.of("", None, target, place)
        cached = self._cache.cached(target, layout, place)
        self._target.add(target, cached)
        if self._statistics.of("comparison"):
            output = self._cache.activation(prediction, layout, Place("output", ""))
            self.compared.add("comparison", Comparison(output, cached.activation, entered))

    def mark_undefined(self, reason: str) -> None:
        """Record that an output and its target cannot be compared, for this reason."""
        self.is_known = True
        self.compared.mark_undefined("comparison", reason)

    def record(self, known: Known) -> TensorRecord | None:
        """Return the merged record of the target; None without one."""
        return self._target.record(None, known) if self.accumulators else None

    def accuracy(self, known: Known) -> AccuracyRecord | None:
        """Return how the output compares with the target; None without one."""
        if not self.is_known or not self._statistics.of("comparison"):
            return None
        found = self.compared.summarize(OF_MODEL, known, {})
        return AccuracyRecord(
            stats=FrozenMapping(found.stats),
            reasons=FrozenMapping(found.reasons),
            bands=found.accuracy_bands,
            channels=found.accuracy_channels,
            orders=found.accuracy_orders,
        )


def _call(prediction: Prediction, output: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        made = prediction(output, batch)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise OptionError(f"`prediction` raised {describe_error(error)}") from error
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise OptionError(f"`prediction` returned {describe_value(made)}; expected (prediction, target)")
    if not all(isinstance(each, torch.Tensor) for each in made):
        raise OptionError(f"`prediction` returned {describe_value(made)}; expected two tensors")
    return made[0], made[1]


def explain_misfit(
    prediction: torch.Tensor, target: torch.Tensor, named: tuple[str, str] = ("output", "target")
) -> str | None:
    """Return why two tensors cannot be compared; None if they can."""
    for each, name in zip((prediction, target), named, strict=True):
        if (reason := unmeasurable(each)) is not None:
            return f"the {name} cannot be compared: {reason}"
    if prediction.shape == target.shape and prediction.is_complex() == target.is_complex():
        return None
    found = (
        f"the {name} is {tuple(each.shape)} {dtype_name(each.dtype)}"
        for each, name in zip((prediction, target), named, strict=True)
    )
    return " and ".join(found)
