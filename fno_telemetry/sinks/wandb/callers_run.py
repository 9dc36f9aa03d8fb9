"""A W&B run that the caller owns: it is written into, but never finished, and keeps all of its rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.callers_steps import CallersSteps
from fno_telemetry.sinks.overview import Detail
from fno_telemetry.sinks.wandb import rows
from fno_telemetry.sinks.wandb.feed import Feed
from fno_telemetry.sinks.wandb.session import LONGEST_REASON
from fno_telemetry.wording import to_one_line

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

CONFIG_KEY = "fno_telemetry"
"""The key of the capture's configuration in that of the caller."""

_WHY_REPLACED = (
    ", because the run logged no row between them; WandbRun(run, commit=True) gives each a row, if nothing "
    "logs with step=. The table of layers has all of them."
)


class CallersRun:
    """Adds each record to the open row of the run, or to the next one; `commit` ends that row.

    Ending a row advances the run's own step, and W&B drops rows that the caller then logs with a smaller
    `step=`. So a row is ended only where the caller allows it.
    """

    def __init__(
        self, run: "Run", commit: bool, detail: Detail, alert: bool = False, pictures: bool = False
    ) -> None:
        self._run = run
        self._commit = commit
        self._feed = Feed(run, detail, alerts=alert, most_reports=1, pictures=pictures)
        self._latest: CaptureRecord | None = None
        self._joined: int | None = None  # the row to which the last record was added
        self._stages: set[str | None] = set()  # of the records in that row
        self._replaced = 0
        self._steps = CallersSteps("W&B")
        self._configured = False
        self.problems: list[str] = []

    @property
    def folder(self) -> Path:
        """The folder of the run on this machine, which holds its log."""
        return Path(self._run.dir).absolute().parent

    def open(self, redacted: bool) -> None:
        """Remember whether the path of the report may be sent to the server."""
        self._feed.redacted = redacted

    def write(self, record: CaptureRecord) -> None:
        """Write one record; into a disabled run, nothing. OptionError if the run already has its step."""
        if self._run.disabled:
            return
        self._steps.add(record)
        current = _count_rows(self._run)
        if self._commit or self._joined != current:
            self._stages.clear()
        # A validation has keys and a step of its own.
        if record.stage in self._stages:
            self._replaced += 1
            if not self.problems:
                self.problems.append(f"W&B: a later record replaces an earlier one{_WHY_REPLACED}")
        self._feed.write_row(record, commit=self._commit)
        self._joined = current
        self._stages.add(record.stage)
        if not self._configured:
            configuration: Any = self._run.config  # its methods declare no types
            own = rows.config(record, of_experiment=True)
            configuration.update({CONFIG_KEY: own}, allow_val_change=True)
            self._configured = True
        self._latest = record

    def flush(self) -> None:
        """Return when W&B's own process has the records; the run's settings say when it writes them."""
        if self._latest is not None:
            self._feed.wait_until_taken()

    def close(self, ok: bool) -> list[str]:
        """Log the last report, and the findings and layers of all records; the run stays open."""
        record, self._latest = self._latest, None
        if record is None:
            return []
        lines = [] if self._run.offline else [f"W&B run: {self._run.url}"]
        lacks = []
        try:
            self._feed.keep_report(record)
        except Exception as error:  # noqa: BLE001 - the rows are written, and the run goes on
            lacks.append(("report", to_one_line(str(error), LONGEST_REASON)))
        lacks += self._feed.log_kept(self._commit)
        lines += [f"W&B lacks the {what} of this run: {why}" for what, why in lacks]
        lines += [self._feed.lacks_pictures] if self._feed.lacks_pictures else []
        if self._replaced:
            lines.append(f"W&B: {self._replaced} records were replaced by later ones{_WHY_REPLACED}")
        self._joined, self._replaced = None, 0
        return lines + left_out_lines(self._feed.left_out)


def _count_rows(run: "Run") -> int:
    """Return the number of rows that this process has ended in the run, or the step of the open one.

    W&B's own process, which the public interface asks, may let a training loop wait.
    """
    known = getattr(run, "_local_step", None)
    return known if isinstance(known, int) else run.step


def left_out_lines(statistics: tuple[str, ...]) -> list[str]:
    """Return a line that names the statistics that the rows had no room for."""
    if not statistics:
        return []
    most = rows.MOST_KEYS
    return [f"W&B: rows hold {most} keys at most; only in the report: {', '.join(statistics)}."]
