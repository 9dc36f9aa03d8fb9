"""Starts to watch a model in its training loop."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fno_telemetry.errors import OptionError
from fno_telemetry.isolation.compilation import has_compiled_parts
from fno_telemetry.mapping.measurement_plan import MeasurementPlan
from fno_telemetry.measuring.statistic_set import choose_statistics
from fno_telemetry.processes.group import is_distributed, is_first_process
from fno_telemetry.records import CaptureRecord
from fno_telemetry.session import BUDGETS, MEMORY_LIMIT
from fno_telemetry.sinks.contract import Sink
from fno_telemetry.statistics.contract import Statistic
from fno_telemetry.tracing.module_calls import takes_hooks, unwrap
from fno_telemetry.watching.delivery import Delivery, Judge
from fno_telemetry.watching.live_diagnosis import LiveDiagnosis
from fno_telemetry.watching.live_line import LiveLine, make_live_line
from fno_telemetry.watching.loop_cost import LoopCost
from fno_telemetry.watching.loop_watch import Scaler, Watch, release_earlier
from fno_telemetry.watching.nonfinite_dump import Dump
from fno_telemetry.watching.schedule import Schedule
from fno_telemetry.watching.step_measurement import Settings
from fno_telemetry.watching.together import Together
from fno_telemetry.wording import hint_at_names

_log = logging.getLogger("fno_telemetry")


def watch(
    model: nn.Module,
    sinks: Iterable[Sink] = (),
    *,
    every: int | Callable[[int], bool] | None = 100,
    start: int = 0,
    stop: int | None = None,
    steps: Collection[int] = (),
    first: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    scaler: Scaler | None = None,
    plan: MeasurementPlan | None = None,
    layers: Sequence[str] = (),
    exclude: Sequence[str] = (),
    statistics: Sequence[Statistic] | None = None,
    gradients: bool = True,
    updates: bool = True,
    budget: str = "full",
    memory_limit: int = MEMORY_LIMIT,
    validation_batches: int = 4,
    on_nonfinite: str | None = None,
    keep: int = 5,
    diagnose: bool = False,
    folder: str | Path = ".",
    over_processes: bool = True,
    progress: bool | None = None,
) -> Watch:
    """Watch a model in its training loop; a record of each due step goes to the sinks.

        with ft.watch(model, [ft.TensorBoard(writer)], every=100) as watch:
            for step, (x, y) in enumerate(loader):
                ...
                optimizer.step()
                watch.step(step, loss=loss, output=output, target=y)

    All forwards of a due step in training mode make one record; gradients are those of the loop's own
    backward, before clipping. The first validation after a due step, which is forwards in eval mode, makes
    another one, whose `stage` is "val". Between due steps one hook on the model looks at a flag.

    Outputs, gradients, buffers and random numbers are the same as without. An error of telemetry or of a sink
    is logged, kept in `watch.problems`, and never raised into the loop. A second watch of the same model
    replaces the first one.

    Args:
        model: The object that the loop calls.
        sinks: Where records go; with several processes, those of the first one. One that writes into a run or
            writer of the caller's is called in the loop, each other on a thread of its own, where at most 16
            records wait; further ones are dropped.
        every: A step is due every so many from `start`; or a function that says whether a step is due.
        start: The first step that may be due.
        stop: Steps from this one on are not due.
        steps: Steps that are due in any case. With `every=None`, only these.
        first: So many steps from `start` on are all due.
        optimizer: Its learning rates are recorded.
        scaler: The `GradScaler` of the loop: gradients are recorded as they are without its factor.
        plan: A plan of this model, as from `fno_telemetry.plan`; by default it is made in the first due step,
            from one more forward of a sample.
        layers: fnmatch patterns on canonical paths; only matching modules are measured. Empty: by role.
        exclude: fnmatch patterns of modules that are not measured.
        statistics: The statistics to record, by default all known ones.
        gradients: Whether gradients are recorded.
        updates: Whether `update_to_weight` is recorded, for which due steps copy all parameters.
        budget: "full" or "light", see `fno_telemetry.capture`.
        memory_limit: Maximum number of bytes of the mean fields of `sample_variation` together.
        validation_batches: So many forwards of a validation, its first ones, are measured; 0 for none.
        on_nonfinite: "dump": when an output of the model is no longer finite, that very forward is measured
            again at once, before the backward, and its record and the last `keep` ones are written into
            `folder` as nonfinite.step<N>.jsonl; a loss that is not finite is told in `problems`. Every
            forward then keeps random states and buffers. A GPU is not waited for: if its answer comes after
            the update, the module is not known. On other devices only the loss is looked at.
        keep: How many records of due steps are kept for that.
        diagnose: Whether each record is judged against the run so far, on a thread: what is found goes into
            the record, and a new warning or error into the log. A run or writer of the caller's then has the
            record one step later.
        folder: Where sinks without a path of their own write.
        over_processes: Where `torch.distributed` is at work, whether records of a training are of all of its
            processes together. Each of them then watches with the same options and names the same steps. If
            one does not take part, the records are those of the first process, with that reason.
        progress: Whether a line on stderr says how the training goes: step, loss, sizes and low frequencies
            of the blocks, what was found, and the share of the time that the watch takes. True: after each
            record, in place if stderr is a terminal, and above a bar of tqdm. None: only if stderr is a
            terminal, not next to a progress bar, and if the loop may print into the same terminal, as lines
            of their own at least 10 s apart. False: never.

    Raises:
        OptionError: an argument cannot be used.
        SinkUnavailable: a sink cannot be opened.
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"`model` is a {type(model).__name__}; expected an nn.Module")
    if on_nonfinite not in (None, "dump"):
        raise OptionError(f"`on_nonfinite` is {on_nonfinite!r}; expected 'dump' or None")
    for name, number in (("keep", keep), ("validation_batches", validation_batches)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise OptionError(f"`{name}` is {number!r}; expected a whole number, 0 or more")
    root = unwrap(model)
    if not takes_hooks(root):
        raise OptionError("TorchScript runs without hooks; watch the model that it was made from")
    if model._compiled_call_impl is not None:
        raise OptionError(
            "the model was compiled in place, by `compile()`, where no hook can stay outside of the compiled "
            "code; watch what `torch.compile(model)` returns, and call that"
        )
    schedule = Schedule(every=every, start=start, stop=stop, steps=steps, first=first)
    schedule.is_due(0)  # a function that raises does so here, not in the loop
    settings = _settle(statistics, memory_limit, budget, gradients, updates, has_compiled_parts(model))
    cost = LoopCost()
    live_line = make_live_line(progress, lambda: cost.share) if is_first_process() else None
    judge = _make_judge(live_line) if diagnose else None
    is_shared = over_processes and is_distributed()
    settings = replace(settings, takes_shares=is_shared)
    # Before its sinks are opened again: a cell of a notebook that runs again may use the same ones.
    release_earlier(root)
    delivery = Delivery(sinks, folder, judge) if is_first_process() else Delivery(())
    together = None
    if is_shared:
        timing = ("function" if callable(every) else every, start, stop, sorted(steps), first)
        names = [one.name for one in settings.statistics.statistics]
        options = repr((timing, names, budget, gradients, updates, tuple(layers), tuple(exclude)))
        together = Together(root, options, delivery.problems.note)
    return Watch(
        model,
        schedule,
        delivery,
        settings,
        optimizer=optimizer,
        scaler=scaler,
        plan=plan,
        layers=layers,
        exclude=exclude,
        validation_batches=validation_batches,
        dump=None if on_nonfinite is None else Dump(Path(folder), keep),
        together=together,
        cost=cost,
        live_line=live_line,
    )


def _make_judge(live_line: LiveLine | None) -> Judge:
    """Return what judges records, each of which the line then shows."""
    diagnosis = LiveDiagnosis()
    if live_line is None:
        return diagnosis.judge
    shown = live_line.take

    def judge(record: CaptureRecord) -> CaptureRecord:
        judged = diagnosis.judge(record)
        shown(judged)
        return judged

    return judge


def _settle(
    statistics: Sequence[Statistic] | None,
    memory_limit: int,
    budget: str,
    gradients: bool,
    updates: bool,
    is_compiled: bool,
) -> Settings:
    if budget not in BUDGETS:
        raise OptionError(f"unknown budget {budget!r}. {hint_at_names(str(budget), BUDGETS)}")
    chosen, problems = choose_statistics(statistics)
    for problem in problems:
        _log.warning("fno-telemetry: %s", problem)
    return Settings(chosen, memory_limit, budget, gradients, updates, is_compiled)
