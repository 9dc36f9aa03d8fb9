"""The W&B runs that the sink starts and finishes itself."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from fno_telemetry import locks
from fno_telemetry.errors import ReportError, SinkUnavailable
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.wandb import rows, run_notes
from fno_telemetry.sinks.wandb.callers_run import left_out_lines
from fno_telemetry.sinks.wandb.feed import Feed
from fno_telemetry.sinks.wandb.how_to_look import how_to_look
from fno_telemetry.sinks.wandb.run_notes import KnownRun
from fno_telemetry.sinks.wandb.starting import FLUSH_SECONDS, Mode, Plan, make_id, offline_id, start
from fno_telemetry.sinks.wandb.transaction_log import is_whole

Layout = Literal["experiment", "per-checkpoint"]
"""One run for all checkpoints, or one for each."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

CUT_OFF = "W&B could not write all of it"

WAIT_SECONDS = 60
"""How long a capture waits for another one that has the run of the experiment open, or is starting one."""

WHOLE_SECONDS = 10

_CONSTANTS = ("n_parameters", "n_modules", "n_samples")


class OwnRuns:
    """Starts a run when the first record needs it: one for all records with a step, or one for each record.

    `identity` distinguishes experiments of the same name.
    """

    def __init__(self, plan: Plan, mode: Mode, experiment: str, identity: str, layout: Layout) -> None:
        self._plan, self._mode = plan, mode
        self._experiment, self._identity = experiment, identity
        self._all_apart = layout == "per-checkpoint"
        self._series: Feed | None = None
        self._running: dict[Feed, KnownRun] = {}
        self._finished: list[KnownRun] = []
        self._unnoted: str | None = None
        self._left_out: tuple[str, ...] = ()
        self._lacking: dict[str, None] = {}  # lines, each once
        self._is_flushed = True
        self._count = 0
        self._turn: locks.Lock | None = None
        self._cut_off: list[Path] = []

    def write(self, record: CaptureRecord) -> None:
        """Write one record, into the experiment's run if it has a step."""
        self._count += 1
        if self._mode.name == "disabled":
            return
        apart = self._all_apart or record.step is None
        if apart:
            feed = self._start_for(record)
        else:
            feed = self._series = self._series or self._start_series(record)
        self._is_flushed = False
        feed.write_row(record)
        self._left_out = feed.left_out
        if apart:
            feed.write_depth(record)
        feed.keep_report(record)
        if apart:
            self._finish(feed, ok=True)

    def flush(self) -> None:
        """Return when what was written is on disk."""
        if self._is_flushed:
            return
        for feed in self._running:
            feed.wait_until_taken()
        time.sleep(1.5 * FLUSH_SECONDS)
        self._is_flushed = True

    def close(self, ok: bool) -> list[str]:
        """Finish open runs in bounded time; return how to look at all runs.

        SinkUnavailable if W&B could not write all of an offline run, which W&B itself does not tell.
        """
        for feed in list(self._running):
            self._finish(feed, ok)
        if self._cut_off:
            cut_off, self._cut_off = self._cut_off, []
            raise SinkUnavailable(
                f"W&B has not written all of {cut_off[0]}: is there room on the disk? The report has all"
            )
        if not self._count:
            return []
        lines = [] if self._mode.why is None else [self._mode.why]
        if self._mode.name == "disabled":
            return [*lines, "W&B wrote nothing."]
        if self._unnoted is not None:
            lines.append(f"W&B: `view --wandb` will not show all of this: {self._unnoted}")
        return lines + how_to_look(self._finished) + left_out_lines(self._left_out) + list(self._lacking)

    def _start_series(self, record: CaptureRecord) -> Feed:
        run_id = make_id(self._experiment, self._identity)
        if self._mode.name == "online":
            # Two that log into one online run at the same time overwrite each other's rows.
            self._turn = locks.wait_for_lock(self._lock_path("run"), WAIT_SECONDS)
            if self._turn is None:
                why = "another capture of this experiment is writing its run"
                self._mode = Mode("offline", f"W&B is offline: {why}")
                return self._start(
                    record, self._experiment, offline_id(run_id), of_experiment=True, joins=run_id
                )
        return self._start(record, self._experiment, run_id, of_experiment=True)

    def _start_for(self, record: CaptureRecord) -> Feed:
        label = _label(record)
        # A second capture is a run of its own: two depth profiles in one run would be drawn as one line.
        run_id = make_id(f"{self._experiment} {label}", self._identity, record.provenance.get("time"))
        return self._start(record, f"{self._experiment} {label}", run_id, of_experiment=False)

    def _lock_path(self, what: str) -> Path:
        folder = self._plan.folder / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f".fno-telemetry.{what}.lock"

    def _start(
        self, record: CaptureRecord, name: str, run_id: str, of_experiment: bool, joins: str | None = None
    ) -> Feed:
        plan = self._plan
        configuration = rows.config(record, of_experiment)
        was_online = self._mode.name == "online"
        # W&B names the folder of a run by its id and the second, and two at once would write into one.
        with locks.locked(self._lock_path("start"), WAIT_SECONDS):
            run, self._mode = start(self._plan, self._mode, name, run_id, configuration)
        if was_online and run.offline:
            self._note_failed_start(run_id)
        feed = Feed(run, plan.detail, plan.redacted, plan.alert, pictures=plan.pictures)
        online = not run.offline
        self._running[feed] = known = KnownRun(
            self._plan.folder / "wandb" / Path(run.sync_dir).name,
            run.id,
            "online" if online else "offline",
            experiment=self._experiment,
            group=self._plan.group,
            entity=run.entity if online else self._plan.entity,
            project=self._plan.project,
            url=run.url if online else None,
            project_url=run.project_url if online else None,
            detail=self._plan.detail,
            # When this part is uploaded, it continues the online run of the experiment.
            joins=run_id if of_experiment and run.id == offline_id(run_id) else joins,
        )
        # Already now, so that `view --wandb` finds it after a kill.
        self._note(replace(known, problem=run_notes.UNFINISHED))
        constants = {key: record.summary[key] for key in _CONSTANTS if record.summary.get(key) is not None}
        run.summary.update(constants)
        return feed

    def _finish(self, feed: Feed, ok: bool) -> None:
        known = self._running.pop(feed)
        if feed is self._series:
            self._series = None
        problem: str | None = run_notes.UNFINISHED
        lacks = "; ".join(f"it has no {what}: {why}" for what, why in feed.log_kept())
        if feed.lacks_pictures is not None:
            self._lacking[feed.lacks_pictures] = None
        try:
            feed.run.finish(exit_code=0 if ok else 1)
            problem = lacks or None
            if feed.run.offline and not _wait_until_whole(known.folder):
                problem = CUT_OFF
                self._cut_off.append(known.folder)
        except TimeoutError:
            problem = f"not everything was uploaded in {self._plan.finish_timeout:g} s"
        finally:
            known = replace(known, problem=problem, media=",".join(feed.media) or None)
            self._finished.append(known)
            self._note(known)
            if not self._running and self._turn is not None:
                self._turn.remove()
                self._turn = None

    def _note_failed_start(self, run_id: str) -> None:
        """Mark the folder that W&B leaves of a failed start, which is no run."""
        for folder in (self._plan.folder / "wandb").glob(f"run-*-{run_id}*"):
            if not (folder / run_notes.NOTE).exists():
                self._note(KnownRun(folder, run_id, "failed"))

    def _note(self, run: KnownRun) -> None:
        try:
            run_notes.write(run, self._plan.redacted)
        except ReportError as error:
            self._unnoted = str(error)


def _wait_until_whole(folder: Path) -> bool:
    """Return whether all of a finished offline run is on disk; W&B's process may need a moment for that."""
    deadline = time.monotonic() + WHOLE_SECONDS
    while not (whole := is_whole(folder)) and time.monotonic() < deadline:
        time.sleep(FLUSH_SECONDS / 4)
    return whole


def _label(record: CaptureRecord) -> str:
    """Return what distinguishes this record within the experiment: its step, or its checkpoint."""
    if record.spelled_step is not None:
        return record.spelled_step
    checkpoint = record.facts_about("checkpoint")
    if checkpoint.get("name"):
        return str(checkpoint["name"])
    return str(checkpoint.get("sha256") or record.summary.get("weights") or "untrained")[:24]
