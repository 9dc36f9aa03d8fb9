"""Runs the same fields at two resolutions, and compares what each layer returns by frequency."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from fno_telemetry.mapping.detection import count_samples
from fno_telemetry.mapping.layouts import Place
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.batch_layouts import BatchLayouts
from fno_telemetry.measuring.batch_runs import BatchRun
from fno_telemetry.measuring.measured_forwards import MeasuredForwards
from fno_telemetry.measuring.resampled_batches import Resampling
from fno_telemetry.records import (
    CaptureRecord,
    FrozenMapping,
    ModuleRecord,
    ResolutionRecord,
    TensorRecord,
    Value,
    freeze_mapping,
)
from fno_telemetry.statistics.activation import Activation, unmeasurable
from fno_telemetry.statistics.field_energy import NO_ENERGY
from fno_telemetry.statistics.frequency_bands import band_edges
from fno_telemetry.statistics.shared_frequencies import Coefficients, Differences, find_coefficients
from fno_telemetry.tracing.events import ActivationCalled, CallEnded, Event, Failed, Padded
from fno_telemetry.tracing.nested_tensors import items

Key = tuple[str, int, str | None]
AnyRecord = TypeVar("AnyRecord", TensorRecord, ModuleRecord)

NAMES = ("resolution_difference", "resolution_gain")

OUTPUT = ""
"""The path of the model itself, whose outputs are those of a record."""


def compare_resolutions(
    model: nn.Module,
    plan: MeasurementPlan,
    batch_run: BatchRun,
    names: frozenset[str],
    pairs: Iterable[tuple[Any, Any]],
) -> dict[Key, Differences]:
    """Run each pair of batches, as they are and resampled; return how the outputs of each module differ.

    Those of the model itself are there too. What the forward raises comes through.
    """
    differences: dict[Key, Differences] = {}
    listener = _Listener(plan, names)

    def run(batch: Any) -> Mapping[Key, Coefficients]:
        selected = batch_run.select(batch)
        listener.start_batch(count_samples(selected))
        forwards.run(selected, lambda entered: batch_run.run(entered, batch))
        return listener.found

    with MeasuredForwards(model, plan, listener, names) as forwards:
        for batch, resampled in pairs:
            before, after = run(batch), run(resampled)
            for key in before.keys() & after.keys():
                differences.setdefault(key, Differences()).add(before[key], after[key])
    return differences


def add_resolution(
    record: CaptureRecord,
    before: CaptureRecord,
    resampling: Resampling,
    compared: Mapping[Key, Differences],
    of_report: str | None,
) -> CaptureRecord:
    """Return the record of resampled fields with how it differs from that of the fields before."""
    outputs = [(key, found) for key, found in compared.items() if key[0] == OUTPUT]
    first = next((found for key, found in outputs if key[2] == _item_of(record.output)), None)
    bands = None if first is None else first.bands
    resolution = ResolutionRecord(
        factor=float(resampling.factor),
        sizes=resampling.after,
        of_sizes=resampling.before,
        of_digest=before.input_digest,
        of_report=of_report,
        band_edges=() if bands is None else band_edges(len(resampling.after)),
        differences=() if bands is None else _relate(bands),
    )

    def add(entry: AnyRecord, found: Differences | None) -> AnyRecord:
        stats, reasons = _summarize(found)
        return replace(
            entry,
            stats=FrozenMapping({**entry.stats, **stats}),
            reasons=FrozenMapping({**entry.reasons, **reasons}),
        )

    output = None if record.output is None else add(record.output, first)
    # What the output is in the list of all outputs, it is by itself too.
    others = [add(one, compared.get((OUTPUT, 0, one.item))) for one in record.outputs]
    facts = {"factor": resolution.factor, "report": of_report, "sizes": resampling.after}
    return replace(
        record,
        modules=tuple(add(one, compared.get((one.name, one.call, one.item))) for one in record.modules),
        output=output,
        outputs=tuple(others),
        resolution=resolution,
        summary=FrozenMapping({**record.summary, "resampled": resolution.factor}),
        provenance=FrozenMapping({**record.provenance, "resampled": freeze_mapping(facts)}),
        warnings=(*record.warnings, *([resampling.note] if resampling.note else [])),
    )


def _item_of(output: TensorRecord | None) -> str | None:
    return None if output is None else output.item


def _summarize(found: Differences | None) -> tuple[dict[str, Value], dict[str, str]]:
    """Return the numbers of one tensor, and why they are undefined."""
    reason = found.reason if found is not None else "the tensor was not there at both resolutions"
    if reason is None and found is not None and found.sums is not None:
        difference, before, after = found.sums.tolist()
        if not math.isfinite(difference + before + after):
            reason = "values are not finite"
        elif before <= NO_ENERGY * found.energy:
            reason = "the tensor has no structure in the frequencies that both resolutions have"
        else:
            return {NAMES[0]: math.sqrt(difference / before), NAMES[1]: math.sqrt(after / before)}, {}
    return dict.fromkeys(NAMES), dict.fromkeys(NAMES, reason or "nothing was compared")


def _relate(bands: torch.Tensor) -> tuple[float | None, ...]:
    difference, before, _ = bands.tolist()
    least = NO_ENERGY * sum(before)
    return tuple(
        math.sqrt(d / y) if y > least and math.isfinite(d) else None
        for d, y in zip(difference, before, strict=True)
    )


class _Listener:
    """Keeps the coefficients of every output of one forward."""

    def __init__(self, plan: MeasurementPlan, names: frozenset[str]) -> None:
        self.found: dict[Key, Coefficients] = {}
        self._layouts = BatchLayouts(plan.model_map.axes)
        self._names = names

    def start_batch(self, samples: int | None) -> None:
        self._layouts.batch_size = samples
        self.start_again()

    def start_again(self) -> None:
        """Forget what came so far."""
        self._layouts.pads.clear()
        self.found = {}

    def on(self, event: Event) -> None:
        """Keep the outputs of an event."""
        match event:
            case CallEnded():
                call = event.call
                is_model = call.parent is not None and call.parent.index == 0 and not call.path
                if is_model or call.path in self._names:
                    for item, tensor in items(event.output):
                        self._keep((call.path, call.number, item), call.module, tensor)
            case ActivationCalled():
                if event.path in self._names:
                    self._keep((event.path, event.number, None), None, event.output)
            case Padded():
                self._layouts.pads.append(event.amounts)
            case Failed():
                # The capture of the same batches has named it.
                pass

    def _keep(self, key: Key, module: nn.Module | None, tensor: torch.Tensor) -> None:
        if unmeasurable(tensor) is not None:
            return
        # The model's own outputs are not those of a module, as in a capture.
        module = None if key[0] == OUTPUT else module
        layout = self._layouts.of(key[0], module, tensor, Place("output", *key))
        self.found[key] = find_coefficients(Activation(tensor, layout))
