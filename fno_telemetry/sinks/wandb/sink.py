"""Weights & Biases: curves, histograms, a depth profile, findings and the report itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fno_telemetry import files
from fno_telemetry.errors import OptionError, ReportError, SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import NumbersByStep, RunContext
from fno_telemetry.sinks.overview import DETAILS, Detail
from fno_telemetry.sinks.wandb.callers_run import CallersRun
from fno_telemetry.sinks.wandb.own_runs import LAYOUTS, Layout, OwnRuns
from fno_telemetry.sinks.wandb.run_notes import runs_in
from fno_telemetry.sinks.wandb.starting import MODES, ModeName, Plan, check_name, require_wandb, settle_mode
from fno_telemetry.sinks.wandb.transaction_log import read_numbers

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

PROJECT = "fno-telemetry"


class WandbRun:
    """Writes every record into W&B: a row over `checkpoint_step`, and the report as an artifact.

    `WandbRun(run)` writes into a run of the caller and never finishes it. A record is added to the open row,
    or to the next one, so that a loop that logs with `step=` keeps every row. Two records without a row of
    the caller between them share one, in which the later record replaces the earlier. `commit=True` gives
    each record a row of its own, for runs in which nothing logs with `step=`. Only the last report becomes an
    artifact; the table of layers has all records. A second record of a step, or one without a step after one
    with a step, is an OptionError, and nothing of it is written; a sink knows what it wrote itself, not what
    others wrote into the run. The caller's metrics must not be called `<statistic>/...` or `findings/...`,
    because those are drawn over `checkpoint_step`; of accuracy, only `<statistic>/accuracy`.

    `WandbRun(project=...)` starts and finishes runs of its own. Their files are under `<folder>/wandb`, each
    with a note of the run's address for `view --wandb`. The layout `experiment` has one run for all
    checkpoints, which a later capture of the same experiment continues. The layout `per-checkpoint` has one
    run for each checkpoint, with a depth profile: `depth` and `depth/<statistic>` over the modules in the
    order of completion. A record without a step always has such a run.

    The row of a diagnosed record counts the causes by severity. Two tables are logged at the end: all
    findings, and the layers of all records. With `detail="overview"` the rows have the curves and histograms
    of the overview, with "full" those of every number; a run's summary has the numbers of the whole model.
    With `alert=True`, a record with a cause that is an error or a warning sends an alert, which W&B delivers
    as its users have configured it; an offline run sends it when it is uploaded.

    At the end of a run its pictures are logged as images under `pictures/`, and its page as `pictures/page`,
    a file of HTML; neither is in the summary. They need matplotlib, and the page jinja2; without, `close`
    says so in a line. With `pictures=None` runs of its own have them and the caller's run does not: there,
    drawing holds up the program for a second or several.

    The mode is `mode`, else WANDB_MODE, else online where credentials are found. Without them, or when W&B
    cannot be reached in `init_timeout` seconds, the run is offline and `close` says why. The user is never
    asked for anything. Finishing takes at most `finish_timeout` seconds, plus about 20 without a connection.

    Only what the record holds is sent: not the host, the program or its output. The artifact contains the
    path of the report; with `RunContext.redact` it is a plain file of the run instead. A row of the detail
    "full" has at most 10,000 keys and, measured with 200 layers, 1.1 MB; the last 100 reports are kept as
    artifacts.
    """

    name = "wandb"

    def __init__(
        self,
        run: "Run | None" = None,
        *,
        project: str = PROJECT,
        entity: str | None = None,
        mode: ModeName | None = None,
        layout: Layout = "experiment",
        group: str | None = None,
        commit: bool = False,
        alert: bool = False,
        detail: Detail = "overview",
        pictures: bool | None = None,
        init_timeout: float = 20.0,
        finish_timeout: float = 60.0,
    ) -> None:
        if run is not None:
            _check_callers(
                run, (project, entity, mode, layout, group) == (PROJECT, None, None, LAYOUTS[0], None)
            )
        elif commit:
            raise OptionError(
                "`commit` is for WandbRun(run): in a run of its own each record has a row in any case"
            )
        if mode is not None and mode not in MODES:
            raise OptionError(f"`mode` {mode!r}: expected {', '.join(MODES[:-1])} or {MODES[-1]}")
        if layout not in LAYOUTS:
            raise OptionError(f"`layout` {layout!r}: expected {' or '.join(LAYOUTS)}")
        if detail not in DETAILS:
            raise OptionError(f"`detail` {detail!r}: expected {' or '.join(DETAILS)}")
        for option, seconds in (("init_timeout", init_timeout), ("finish_timeout", finish_timeout)):
            if not isinstance(seconds, int | float) or not seconds > 0:
                raise OptionError(f"`{option}` {seconds!r}: a number of seconds above 0 was expected")
        self._project = check_name("project", project)
        self._entity = None if entity is None else check_name("entity", entity)
        self._group = None if group is None else check_name("group", group)
        self._mode, self._layout = mode, layout
        self._timeouts = (init_timeout, finish_timeout)
        self._alert = alert
        self._pictures = pictures
        self.detail: Detail = detail
        self._callers = None if run is None else CallersRun(run, commit, detail, alert, bool(pictures))
        self._own: OwnRuns | None = None

    @property
    def belongs_to_caller(self) -> bool:
        """Whether records go into a run that the caller opened."""
        return self._callers is not None

    @property
    def problems(self) -> Sequence[str]:
        """What got lost in a run of the caller's, in one line."""
        return () if self._callers is None else self._callers.problems

    def open(self, run: RunContext) -> None:
        """Import wandb and choose the mode; SinkUnavailable without wandb or a folder that can be written."""
        redacted = run.redact
        if self._callers is not None:
            self._callers.open(redacted)
            return
        require_wandb()
        reason = files.why_unwritable(run.folder / "wandb") or files.why_not_utf8(run.folder)
        if reason:
            raise SinkUnavailable(f"W&B cannot write to {run.folder / 'wandb'}: {reason}")
        folder = run.folder.resolve()
        experiment = run.experiment or folder.name
        # An experiment that has its name from the folder is the one in that folder, not another of that name.
        identity = run.origin or (str(folder) if experiment == folder.name else "")
        group = self._group or experiment
        plan = Plan(
            run.folder,
            self._project,
            self._entity,
            group,
            *self._timeouts,
            redacted,
            self._alert,
            self.detail,
            pictures=self._pictures is not False,
        )
        self._own = OwnRuns(plan, settle_mode(self._mode), experiment, identity, self._layout)

    def write(self, record: CaptureRecord) -> None:
        """Write one record."""
        self._target().write(record)

    def flush(self) -> None:
        """Return when the records are on disk, or, in a run of the caller, with W&B's own process."""
        self._target().flush()

    def close(self, ok: bool) -> list[str]:
        """Finish runs of its own, leave the caller's open; return how to look once something is written."""
        if self._callers is not None:
            return self._callers.close(ok)
        own, self._own = self._own, None
        return [] if own is None else own.close(ok)

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the numbers in W&B's own logs under `folder`, or in that of the caller's run.

        The logs of online runs stay on this machine, too. Statistics for which a row had no room are not in
        them (MOST_KEYS). MissingExtra without wandb.
        """
        found: dict[int | None, dict[str, int | float]] = {}
        for run_folder in self._run_folders(folder):
            for step, numbers in read_numbers(run_folder).items():
                found.setdefault(step, {}).update(numbers)
        return found

    def _run_folders(self, folder: Path) -> list[Path]:
        if self._callers is not None:
            return [self._callers.folder]
        try:
            return [run.folder for run in runs_in(folder)]
        except ReportError:  # there is none
            return []

    def _target(self) -> CallersRun | OwnRuns:
        target = self._callers or self._own
        if target is None:
            raise SinkUnavailable("This wandb sink is not open: call open(run), or give it a run.")
        return target


def _check_callers(run: object, alone: bool) -> None:
    if not all(hasattr(run, method) for method in ("log", "define_metric", "log_artifact")):
        raise OptionError(
            f"`run` is a {type(run).__name__}: what wandb.init returned was expected; "
            "for a run of its own give `project`"
        )
    if not alone:
        raise OptionError(
            "WandbRun takes `run`, or `project`, `entity`, `mode`, `layout` and `group`: not both"
        )
