"""Captures: run a model over batches with hooks and return a record; detect the map of a model."""

import contextlib
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import nn

from fno_telemetry.errors import InputError, MapError, ModelError, OptionError
from fno_telemetry.isolation.attributes import Attribute
from fno_telemetry.isolation.compilation import keep_uncompiled
from fno_telemetry.isolation.preservation import Preserved, preserve
from fno_telemetry.mapping.detection import Detected, count_samples, detect, set_to_eval, with_gradients
from fno_telemetry.mapping.layer_filters import select_names
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.mapping.model_map import GivenRole, ModelMap
from fno_telemetry.measuring.accumulators import MemoryBudget
from fno_telemetry.measuring.awaited_gradients import Branches, Gradients
from fno_telemetry.measuring.batch_devices import follow_model
from fno_telemetry.measuring.batch_runs import BatchRun, Forward
from fno_telemetry.measuring.collector import Collector
from fno_telemetry.measuring.gradient_pass import GradientPass
from fno_telemetry.measuring.losses import Loss
from fno_telemetry.measuring.measured_batches import Counts, digest_batches, run_batch
from fno_telemetry.measuring.measured_forwards import MeasuredForwards
from fno_telemetry.measuring.parameter_records import list_parameters
from fno_telemetry.measuring.record_builder import Run, Seconds, build_record
from fno_telemetry.measuring.resampled_batches import Resampling
from fno_telemetry.measuring.resolution_pass import add_resolution, compare_resolutions
from fno_telemetry.measuring.statistic_set import choose_statistics
from fno_telemetry.measuring.target_collector import Prediction, TargetPairs
from fno_telemetry.processes.agreement import agree_on_errors
from fno_telemetry.processes.capturing import share_capture
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sources.batch_parts import BatchParts, Selection
from fno_telemetry.sources.loaders import explain_no_batches
from fno_telemetry.statistics.contract import Statistic
from fno_telemetry.tracing.module_calls import paths_by_module, takes_hooks, unwrap
from fno_telemetry.wording import hint_at_names, to_one_line

MEMORY_LIMIT = 2**30
"""Maximum number of bytes of the mean fields of all modules together."""

BUDGETS = ("full", "light")
"""What a capture may cost: everything measured in full, or percentiles and spectra of a share."""

_ONE_BATCH = (torch.Tensor, tuple, dict)  # a list holds batches
_MOST_LISTED = 6  # attributes that a warning names


def map_model(
    model: nn.Module,
    batches: object,
    *,
    inputs: Selection = None,
    target: Selection = None,
    forward: Forward | None = None,
    given: Mapping[str, GivenRole] | None = None,
) -> ModelMap:
    """Return the map of a model, detected from one forward over the first sample; the model is unchanged.

    `batches`, `inputs`, `target` and `forward` are the same as for `capture`; `given` holds roles or axes by
    canonical path. The map's `warnings` name what could not be put back.

    Raises:
        InputError: there is no batch.
        ModelError: a parameter or buffer has no values yet, or hooks cannot follow the model.
        MapError: `given` names a module or an axis that does not exist.
    """
    return plan(model, batches, inputs=inputs, target=target, forward=forward, given=given).model_map


@keep_uncompiled
def plan(
    model: nn.Module,
    batches: object,
    *,
    inputs: Selection = None,
    target: Selection = None,
    forward: Forward | None = None,
    given: Mapping[str, GivenRole] | None = None,
) -> MeasurementPlan:
    """Return how forwards of a model are measured, for `capture(..., plan=plan)`; the model is unchanged.

    It holds for batches of other sizes and resolutions, and for other models of the same structure.
    Arguments and errors are those of `map_model`.
    """
    batch_run = BatchRun(model, BatchParts.choose(inputs, target), forward)
    first = next(follow_model(_batches(batches), model), None)
    if first is None:
        raise InputError("there is no batch to run the model on")
    _require_values(model)
    with preserve(model) as preserved, torch.no_grad():
        detected = _detect(batch_run.suit(first), first, given, preserved)
    model_map = detected.plan.model_map
    warnings = (*model_map.warnings, *_describe_state(model, detected.built, preserved))
    return replace(detected.plan, model_map=replace(model_map, warnings=warnings))


make_plan = plan  # where an argument has its name


@keep_uncompiled
def capture(
    model: nn.Module,
    batches: object,
    *,
    inputs: Selection = None,
    target: Selection = None,
    prediction: Prediction | None = None,
    step: SupportsIndex | None = None,
    forward: Forward | None = None,
    given: Mapping[str, GivenRole] | None = None,
    plan: MeasurementPlan | None = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    statistics: Sequence[Statistic] | None = None,
    memory_limit: int = MEMORY_LIMIT,
    budget: str = "full",
    summary: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
    loss: Loss | str | None = None,
    over_processes: bool = False,
) -> CaptureRecord:
    """Run `model` over `batches` in eval mode and record what its modules returned.

    A tensor is one batch; a list or iterator yields batches, where a tuple holds positional arguments and a
    dict keyword arguments. `forward(batch)` runs anything else. An error of the model's forward comes through
    as it is, with a note that says what its batch was taken to be. It runs without gradients unless it
    differentiates for itself. Outputs are the same as without a capture; afterwards parameters, buffers,
    plain attributes, training flags and random states are bit-identical and no hook remains, also after an
    error. What cannot be put back, such as the position in a file, is named in a warning of the record.

    `inputs=0, target=1` is for the usual loader of (x, y): x goes into the model, and what comes out is
    compared with y in `record.accuracy`.

    Args:
        model: Any module. Batches on the CPU are moved to its device, if it is on one.
        batches: The batches to run, see above.
        inputs: The parts of a batch that go into the model: a position, a key or the name of a field, or a
            list of them; `1.mask` is `mask` in the part at 1. A key that the forward has by name is passed by
            name, any other part by position, in the order given. Default: the whole batch, but of a tuple,
            list or dict not the target. Of {"x", "y"}, as neuraloperator's loaders give, `x` alone goes in
            and `y` is the target, unless the forward has an argument `y`; a warning says so.
        target: The part of a batch that the output is compared with; a list where `prediction` makes one
            target of several parts.
        prediction: `prediction(output, batch)` returns (prediction, target), two tensors of one shape, where
            these are not the model's first output and the target as they are.
        step: The number of training steps so far, an integer from 0; the x-axis of every dashboard. If it
            counts epochs, also give `summary={"step_kind": "epoch"}`.
        forward: Called with each batch instead of the model; with `inputs`, with these parts.
        given: Roles and axes given by hand, by canonical path.
        plan: A plan of this model or of one of the same structure, which saves finding it out again.
        layers: fnmatch patterns on canonical paths; only matching modules are measured. Empty: by role.
        exclude: fnmatch patterns of modules that are not measured.
        statistics: The statistics to record, by default all known ones. A statistic that another one needs
            is measured too, in any order.
        memory_limit: Maximum number of bytes of the mean fields of `sample_variation` together.
        budget: "full", or "light": percentiles and histograms of 65,536 elements of each tensor and batch,
            spectra and `truncated_energy_fraction` of an eighth of the fields, but of 16 at least; tensors
            with less than twice as many are taken whole. Shares are spread evenly, and the record states
            them and the errors that they add; all other numbers of `modules` and `blocks` are the same.
        summary: Entries of the record's summary, which replace those found here.
        provenance: Entries of the record's provenance, which replace those found here.
        warnings: Warnings that come first in the record.
        progress: Called with the number of samples done so far, after each batch.
        loss: `loss(output, batch)` returns a scalar tensor; or "mse", or "relative_l2" (the mean over samples
            of ‖output - target‖ / ‖target‖), which need a target. If given, a copy of each batch is also run
            with gradients, and the record has the gradients of the mean loss over all samples.
        over_processes: Where `torch.distributed` is at work, whether all of its processes capture together.
            Each of them calls this with the same model and all batches, runs its share of whole batches, and
            gets the record of all. An error in one of them is raised in all.

    Raises:
        InputError: there is no batch, it does not have the chosen parts, or the target cannot be compared
            with the output: nothing is broadcast.
        ModelError: a parameter or buffer has no values yet, or it cannot be run with gradients.
        MapError: a pattern matches nothing, the model was never called, or it does not have the modules of
            the plan.
        OptionError: `step` is not an integer from 0, or `summary` has another `checkpoint_step`; `inputs`
            or `target` names no part; `prediction` raises an error or does not return two tensors; the loss
            raises an error, is not a scalar or does not require a gradient; `statistics` holds an object that
            is not a statistic; there is no such `budget`.
    """
    started = time.perf_counter()
    summary = _add_step(summary or {}, step)
    if budget not in BUDGETS:
        raise OptionError(f"unknown budget {budget!r}. {hint_at_names(str(budget), BUDGETS)}")
    batch_run = BatchRun(model, BatchParts.choose(inputs, target), forward)
    shared = share_capture(over_processes)
    every = None if shared is None else list(_batches(batches))
    queue = follow_model(_batches(batches) if every is None else every, model)
    first = next(queue, None)
    if first is None:
        raise InputError("there is no batch to run the model on")
    batch_run = batch_run.suit(first)
    own: Iterable[Any] = chain([first], queue)
    if shared is not None and every is not None:
        own = follow_model(shared.select_share(every), model)
    pairs = TargetPairs(batch_run.parts, prediction)
    loss_function = pairs.make_loss(loss) if isinstance(loss, str) else loss
    chosen, problems = choose_statistics(statistics)
    _require_values(model)
    with preserve(model) as preserved, torch.no_grad():
        agreed = contextlib.nullcontext if shared is None else agree_on_errors
        with agreed():
            detected = _use(plan, model, given) if plan else _detect(batch_run, first, given, preserved)
        plan, model_map = detected.plan, detected.plan.model_map
        structure_seconds = time.perf_counter() - started
        names = select_names(model_map, layers, exclude)
        memory = MemoryBudget(memory_limit)
        collector = Collector(
            model_map,
            chosen,
            names,
            memory,
            is_light=budget == "light",
            is_only_batch=shared is None and _is_one_batch(batches),
            has_target=pairs.are_known,
            first_size=None if shared is None else count_samples(batch_run.select(first)),
        )
        gradient_pass = None
        if loss_function is not None:
            gradient_pass = GradientPass(model, plan, chosen, names, loss_function, memory)
        counts = Counts()
        mode = with_gradients() if plan.differentiates else contextlib.nullcontext()
        of_modes = bool(chosen.of("spectral_input"))
        forwards = MeasuredForwards(model, plan, collector, names, of_modes)
        with agreed(), forwards, mode:
            for batch in own:
                if gradient_pass is not None:
                    # Before the measured forward, so that both get the same batch and the same states.
                    gradient_pass.add(batch, batch_run, count_samples(batch_run.select(batch)))
                counts = run_batch(batch, batch_run, pairs, forwards, collector, counts)
                if progress is not None:
                    progress(counts.samples)
            if collector.fired:
                collector.fired |= forwards.unasked
            elif counts.samples:
                raise MapError("the model was never called: `forward` must call it")
        gradients = None
        if gradient_pass is not None:
            if shared is not None:
                gradient_pass.add_up(shared.group)
            branches = {key: Branches(b.spectral, b.local) for key, b in collector.blocks.items()}
            gradients = gradient_pass.finish(collector.modules, branches)
        wall = time.perf_counter() - started
        run = Run(
            samples=counts.samples,
            batch_size=counts.batch_size,
            digest=counts.digest.hexdigest(),
            seconds=Seconds(wall, counts.model_seconds, forwards.seconds, structure_seconds),
            called_outside=forwards.outside,
            deviations=tuple(forwards.deviations),
            budget=budget,
            parts=batch_run.parts.as_names(),
        )

        def build(run: Run, gradients: Gradients | None) -> CaptureRecord:
            return build_record(
                model,
                plan,
                collector,
                run,
                gradients,
                chosen.foreign_quantities,
                summary,
                provenance or {},
                (*warnings, *problems, *batch_run.notes, *model_map.warnings),
            )

        if shared is None or every is None:
            record = build(run, gradients)
        else:
            run = replace(run, digest=digest_batches(every, batch_run))
            record = shared.build(collector, run, counts.batches, gradients, build)
    return replace(
        record,
        parameters=list_parameters(model, {module.name for module in record.modules}),
        warnings=(*record.warnings, *_describe_state(model, detected.built, preserved)),
    )


@keep_uncompiled
def capture_resampled(
    model: nn.Module,
    batches: object,
    also_at: float,
    record: CaptureRecord,
    *,
    plan: MeasurementPlan | None = None,
    given: Mapping[str, GivenRole] | None = None,
    inputs: Selection = None,
    target: Selection = None,
    forward: Forward | None = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    of_report: str | None = None,
    **arguments: Any,
) -> CaptureRecord:
    """Capture the same batches once more with `also_at` times as many points along each axis.

    Every field of a batch that has the points of the model's input is resampled by its spectrum: cut off, or
    zero-padded. `record` is the capture of the batches as they are, `of_report` the name of its report; all
    other arguments are those of `capture`, and should be the same again. In the record, `resolution` says how
    the output differs in the frequencies that both grids have, and `resolution_difference` and
    `resolution_gain` of each module how its outputs do: `diagnose` given both records reads these.

    Both resolutions are run once more to compare them; all processes of a launch compare all batches.

    Raises:
        InputError: the fields have no spatial axes, too few points for this factor, or no spectrum.
        OptionError: `also_at` is not a number above 0 other than 1; and what `capture` raises.
    """
    batches = list(_batches(batches))
    resampling = Resampling.of(record, also_at)
    others = list(resampling.apply(batches))
    chosen: dict[str, Any] = {"inputs": inputs, "target": target, "forward": forward}
    plan = plan or make_plan(model, batches, given=given, **chosen)
    found = capture(model, others, **chosen, plan=plan, layers=layers, exclude=exclude, **arguments)
    batch_run = BatchRun(model, BatchParts.choose(inputs, target), forward)
    names = select_names(plan.model_map, layers, exclude)
    with preserve(model), torch.no_grad():
        set_to_eval(model)
        mode = with_gradients() if plan.differentiates else contextlib.nullcontext()
        with mode:
            moved = (follow_model(iter(each), model) for each in (batches, others))
            compared = compare_resolutions(
                model, plan, batch_run.suit(batches[0]), names, zip(*moved, strict=True)
            )
    return add_resolution(found, record, resampling, compared, of_report)


def _detect(
    batch_run: BatchRun, batch: Any, given: Mapping[str, GivenRole] | None, preserved: Preserved
) -> Detected:
    def run(selected: Any) -> object:
        return batch_run.run(selected, batch)

    return detect(batch_run.model, batch_run.select(batch), run, given, preserved)


def _use(plan: MeasurementPlan, model: nn.Module, given: Mapping[str, GivenRole] | None) -> Detected:
    """Return a plan that was made before, with the model in eval mode."""
    if given:
        raise OptionError("roles are given by hand when a plan is made; leave out `given`, or the plan")
    if (why := plan.explain_misfit(model)) is not None:
        raise MapError(why)
    set_to_eval(model)
    return Detected(plan)


def _describe_state(model: nn.Module, built: Sequence[Attribute], preserved: Preserved) -> Iterator[str]:
    """Yield a warning for what was not put back."""
    if built:
        yield (
            "the first forward builds parts of the model; they stay, and so does what it changed: "
            + _list_attributes(model, built)
        )
    if preserved.left:
        yield (
            f"{_list_attributes(model, preserved.left)}: changed by the forward and cannot be put back, so "
            "the numbers may be those of a later call"
        )


def _list_attributes(model: nn.Module, attributes: Iterable[Attribute]) -> str:
    paths = paths_by_module(model)
    names = []
    for attribute in attributes:
        path = paths.get(id(attribute.module), ("",))[0]
        kind = f" ({attribute.kind})" if attribute.kind else ""
        names.append(f"{path}.{attribute.name}{kind}".lstrip("."))
    listed = list(dict.fromkeys(names))
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    return ", ".join(listed[:_MOST_LISTED]) + more


def _add_step(summary: Mapping[str, Any], step: SupportsIndex | None) -> Mapping[str, Any]:
    """Return the summary with the given step in it."""
    if step is None:
        return summary
    number = check_step(step)
    other = summary.get("checkpoint_step")
    if other is not None and other != number:
        raise OptionError(
            f"`step` is {number}, but `summary` has the checkpoint_step {other!r}: leave out one of them"
        )
    return {**summary, "checkpoint_step": number, "step_kind": summary.get("step_kind") or "step"}


def check_step(step: SupportsIndex) -> int:
    """Return a step as an int; OptionError for what is not an integer from 0."""
    number = None
    # A bool, or a tensor of one element, would pass as an index.
    if (
        not isinstance(step, bool)
        and getattr(step, "dtype", None) not in (torch.bool, np.bool_)
        and not getattr(step, "ndim", 0)
    ):
        with contextlib.suppress(TypeError, RuntimeError):  # no integer, or a tensor without values
            number = operator.index(step)
    if number is None or number < 0:
        raise OptionError(f"`step` is {to_one_line(repr(step), 60)}: expected an integer, 0 or more")
    return number


def _is_one_batch(batches: object) -> bool:
    """Return whether this is known to be a single batch, before any is run."""
    return len(batches) == 1 if isinstance(batches, list) else isinstance(batches, _ONE_BATCH)


def _batches(batches: object) -> Iterable[Any]:
    if isinstance(batches, _ONE_BATCH):
        return [batches]
    if not isinstance(batches, Iterable) or isinstance(batches, np.ndarray | str):
        raise InputError(f"`batches` is {explain_no_batches(batches)}")
    return batches


def _require_values(model: nn.Module) -> None:
    """Raise ModelError for a model whose parameters have no values yet, or that runs without hooks."""
    if not takes_hooks(unwrap(model)):
        raise ModelError("TorchScript runs without hooks; capture the model that it was made from")
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ModelError(
                f"{name!r} has no shape yet because its module is lazy; run the model once first"
            )
        if tensor.is_meta:
            raise ModelError(f"{name!r} is on the meta device and has no values; load weights first")
