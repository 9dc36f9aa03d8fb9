"""TensorBoard: curves, histograms, charts and texts, through the real SummaryWriter."""

import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fno_telemetry.errors import OptionError, SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.callers_steps import CallersSteps
from fno_telemetry.sinks.contract import NumbersByStep, RunContext
from fno_telemetry.sinks.earlier_reports import EarlierReports, Point
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.options import check_path
from fno_telemetry.sinks.overview import DETAILS, Detail
from fno_telemetry.sinks.tensorboard.event_files import as_unavailable, read_numbers
from fno_telemetry.sinks.tensorboard.one_run import OneRun
from fno_telemetry.sinks.tensorboard.run_folders import OWN_EVENTS, OwnRun, folder_name
from fno_telemetry.sinks.tensorboard.summaries import Charts

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes every record into one TensorBoard run, at the record's step.

    With `detail="overview"` the run has the curves and histograms of the overview, which the Text tab, the
    Custom Scalars tab and Histograms show at a glance; with "full" those of every number.

    `TensorBoard(writer)` writes into what the caller owns: flushed, never closed. `layout=False` leaves the
    Custom Scalars tab alone, of which a run can have only one layout, the last. A second record of a step, or
    one without a step after one with a step, is an OptionError, and nothing of it is written. A sink knows
    what it wrote itself, not what others wrote into the same writer.

    `TensorBoard(log_dir=...)` opens and closes a writer of its own; without arguments the run decides:
    `<folder>/tensorboard/<experiment>`. Nothing is on disk before the first record.

    An own folder that already holds events of this sink gets a fresh run: the new events are written into a
    hidden folder `.<name>.<random>.part` and replace the old ones when the run ends well; otherwise the old
    ones stay. Only event files of this sink (`events.out.tfevents.*.fno-telemetry`) are replaced. All other
    files and folders are kept and never moved. A TensorBoard that is already running shows the old run until
    it is restarted. The hidden folder of a killed process is removed by the next one that writes here.

    TensorBoard hides a point that comes after a larger step. So where the run decides, this sink also writes
    the earlier reports of the same experiment in the run's folder, all in the order of their steps; the JSON
    sink must have the record before this one. Where several captures write into the folder at the same time,
    each writes the run again at its end if another one's report belongs in between. To a writer or a
    `log_dir`, write records in ascending step. In a series a checkpoint without a step has a run of its own,
    `<experiment>/<checkpoint>`. TensorBoard stores curves as float32, so a larger number appears as infinity.

    Pictures of the whole run are drawn when it ends well: the profile by depth, all layers over the steps,
    and maps by layer and step. They need matplotlib; without it `close` says so in a line. With
    `pictures=None` a run of its own has them and the caller's writer does not: there, drawing holds up the
    program for a second or several.
    """

    name = "tensorboard"

    best_tab = "#text&_smoothingWeight=0"
    """The tab to open first, the end of an address: that of the overview, from which links lead on.

    Smoothing, which would distort curves of few points, is then off in the other tabs too.
    """

    def __init__(
        self,
        writer: "SummaryWriter | None" = None,
        *,
        log_dir: str | Path | None = None,
        layout: bool = True,
        detail: Detail = "overview",
        pictures: bool | None = None,
    ) -> None:
        if writer is not None and log_dir is not None:
            raise OptionError(
                "TensorBoard takes `writer` or `log_dir`, not both: the writer has its own folder"
            )
        if writer is not None and not hasattr(writer, "add_scalar"):
            raise OptionError(
                f"`writer` is a {type(writer).__name__}: a SummaryWriter was expected; "
                "for a folder give `log_dir`"
            )
        if detail not in DETAILS:
            raise OptionError(f"`detail` {detail!r}: expected {' or '.join(DETAILS)}")
        self.detail: Detail = detail
        self._has_pictures = writer is None if pictures is None else pictures
        self._callers = writer
        self._callers_steps = None if writer is None else CallersSteps("TensorBoard", drawn_at=0)
        self._log_dir = None if log_dir is None else check_path("log_dir", log_dir)
        self._layout = layout
        self._context: RunContext | None = None
        self._earlier: EarlierReports | None = None
        self._start_afresh()

    @property
    def belongs_to_caller(self) -> bool:
        """Whether records go into a writer that the caller opened."""
        return self._callers is not None

    def open(self, run: RunContext) -> None:
        """Import SummaryWriter and choose the folder; SinkUnavailable when either is impossible."""
        self._start_afresh()
        if self._callers is not None:
            return
        self._context = run
        if self._log_dir is None:
            self._earlier = EarlierReports(run, _experiment(run))
        self._runs[""] = self._own_run(run, "")

    def write(self, record: CaptureRecord) -> None:
        """Write one record and flush it; OptionError if the caller's writer already has its point."""
        if self._callers_steps is not None:
            self._callers_steps.add(record)
        run = self._run_of(record)
        if run is not self._runs.get("") or self._earlier is None:
            run.write(record, self._layout)
            return
        for earlier, on_disk in self._earlier.before(record):
            run.write(earlier, self._layout, on_disk)
        run.write(record, self._layout, self._earlier.find(record))

    def flush(self) -> None:
        """Write what is buffered to disk."""
        for run in self._runs.values():
            run.flush()

    def close(self, ok: bool) -> list[str]:
        """Close a writer of its own, flush the caller's; return how to look once something is written."""
        runs, earlier = self._runs, self._earlier
        self._start_afresh()
        lines: list[str] = []
        problems: dict[str, None] = {}
        for name, run in runs.items():
            if run.own is None or not ok or not run.points:
                if ok and run.points:
                    problems |= dict.fromkeys(run.add_pictures())
                run.close(ok)
                continue
            try:
                with run.own.alone():
                    if not name and earlier is not None:
                        run.complete(earlier, self._layout)
                        lines = [f"left out of TensorBoard: {reason}" for reason in earlier.left_out]
                    problems |= dict.fromkeys(run.add_pictures())
                    run.close(ok)
            finally:
                run.close(ok=False)
        lines += problems
        written = [run for run in runs.values() if run.is_visible]
        if not written:
            return []
        own = written[0].own
        shown = getattr(self._callers, "log_dir", None) if own is None else own.shown
        if shown is not None:
            lines = _how_to_look(shown, self.best_tab) + lines
        if any(run.own is not None and run.own.has_replaced for run in written):
            lines.append("The earlier run was replaced: restart a TensorBoard that is already open.")
        return [*lines, *(line for run in written for line in _warn_of_order(run.points))]

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the curves in the event files under `folder`, the log_dir or the caller's; as float32.

        A run that was being replaced when the process was killed is not among them. MissingExtra without
        tensorboard.
        """
        if self._callers is not None:
            files = Path(self._callers.log_dir).glob("events.out.tfevents.*")
        else:
            files = (self._log_dir or folder / "tensorboard").rglob(OWN_EVENTS)
        return read_numbers(sorted(files, key=lambda file: file.name))

    def _start_afresh(self) -> None:
        self._context = self._earlier = None
        callers = self._callers
        self._runs = {} if callers is None else {"": self._run(None, lambda: callers)}

    def _run_of(self, record: CaptureRecord) -> OneRun:
        """Return the run that a record belongs to: the experiment's, or one of its own."""
        context = self._context
        if self._callers is None and context is None:
            raise SinkUnavailable("This TensorBoard sink is not open: call open(run), or give it a writer.")
        apart = context is not None and context.series and record.step is None
        name = record.label if apart else ""
        if context is not None and name not in self._runs:
            self._runs[name] = self._own_run(context, name)
        return self._runs[name]

    def _own_run(self, run: RunContext, name: str) -> OneRun:
        make_writer = _summary_writer_class()
        if self._log_dir is None:
            shown = run.folder / "tensorboard"
            # Next to the folder that TensorBoard watches, so that half a run is never shown.
            hidden_in, folder = run.folder, shown / folder_name(_experiment(run))
        else:
            shown = folder = self._log_dir
            hidden_in = self._log_dir.absolute().parent
        own = OwnRun(make_writer, folder / folder_name(name) if name else folder, shown, hidden_in)
        return self._run(own, own.writer)

    def _run(self, own: OwnRun | None, writer: "Callable[[], SummaryWriter]") -> OneRun:
        series = KeptSeries() if self._has_pictures else None
        is_redacted = self._context is not None and self._context.redact
        return OneRun(own, writer, self.detail, Charts(self.detail), series, is_redacted)


def _experiment(run: RunContext) -> str:
    return run.experiment or run.folder.absolute().name


def _summary_writer_class() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise as_unavailable(error) from error
    return SummaryWriter


def _how_to_look(folder: object, best: str) -> list[str]:
    path = shlex.quote(str(folder))
    return [
        f"fno-telemetry view --tensorboard {path}",
        f"or: tensorboard --logdir {path}, then open http://localhost:6006/{best}",
    ]


def _warn_of_order(points: Sequence[Point]) -> list[str]:
    for (before, _), (after, _) in pairwise(points):
        if after < before:
            return [f"TensorBoard may hide points: step {after} came after {before}; write ascending steps."]
    return []
