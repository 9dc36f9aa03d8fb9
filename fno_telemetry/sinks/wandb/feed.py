"""Writes records into one W&B run, whoever owns it."""

import re
from collections import Counter, deque
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fno_telemetry import files, keys, report
from fno_telemetry.findings import STATISTIC, count_causes_by_key
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.overview import Detail
from fno_telemetry.sinks.wandb import findings_table, rows
from fno_telemetry.sinks.wandb.layers_table import LayersTable
from fno_telemetry.sinks.wandb.media import log_pictures
from fno_telemetry.sinks.wandb.rows import DEPTH, STEP, STEP_OF_VALIDATION
from fno_telemetry.sinks.wandb.session import LONGEST_REASON, stage_in
from fno_telemetry.sinks.wandb.tables import MOST_ROWS, Table
from fno_telemetry.wording import to_one_line

if TYPE_CHECKING:
    from wandb import Table as LoggedTable
    from wandb.sdk.wandb_run import Run

ARTIFACT_TYPE = "activation-report"

ARTIFACT_FILE = "activation_report.json"

MOST_REPORTS = 100
"""Older reports are not kept as artifacts, so that a long training does not fill the disk."""


class Feed:
    """One run: its metrics are defined as they appear; its reports and tables are kept until the end.

    An artifact contains the path of its file, and so does a table, because W&B makes an artifact of it. When
    a run is `redacted`, both are plain files of the run, without a path.
    """

    def __init__(
        self,
        run: "Run",
        detail: Detail,
        redacted: bool = False,
        alerts: bool = False,
        most_reports: int = MOST_REPORTS,
        pictures: bool = False,
    ) -> None:
        self.run = run
        self.redacted = redacted
        self._detail = detail
        self._alerts = alerts
        self.left_out: tuple[str, ...] = ()
        self.media: list[str] = []  # keys of pictures
        self.lacks_pictures: str | None = None  # a line
        self._defined: set[tuple[str, str | None]] = set()
        self._reports: deque[tuple[Path, CaptureRecord]] = deque()
        self._findings: deque[list[Any]] = deque(maxlen=MOST_ROWS)
        self._layers = LayersTable()
        self._series = KeptSeries() if pictures else None
        self._causes: Counter[str] = Counter()
        self._most_reports = most_reports
        self._kept = 0

    def write_row(self, record: CaptureRecord, commit: bool = True) -> None:
        """Write the record as one row; without `commit` it is added to the open row, or to the next one.

        Its findings and layers are kept for `log_kept`; with `alerts`, an error or a warning is also sent as
        an alert.
        """
        import wandb

        made = rows.row(record, self._detail)
        self.left_out = made.left_out
        step_metric = None if record.step is None else rows.step_key(record)
        self._define([*made.scalars, *made.histograms], step_metric)
        values: dict[str, Any] = dict(made.scalars)
        for key, bins in made.histograms.items():
            counts_and_edges: Any = bins  # lists serve as well as the arrays that are declared
            values[key] = wandb.Histogram(np_histogram=counts_and_edges)
        # No step=: one smaller than the run's own would drop the row.
        self.run.log(values, commit=commit)
        self._findings += findings_table.table_rows(record)
        self._causes.update(count_causes_by_key(record))
        self._layers.add(record)
        if self._series is not None:
            self._series.add(record)
        alert = findings_table.alert(record) if self._alerts else None
        if alert is not None:
            # W&B holds back an alert of the same title for a minute, and takes 0 for that minute.
            self.run.alert(alert.title, alert.text, alert.level, timedelta(microseconds=1))

    def write_depth(self, record: CaptureRecord) -> None:
        """Write the depth profile, one row per module."""
        self.run.define_metric(f"{DEPTH}/*", step_metric=DEPTH, summary="none")
        for name in (DEPTH, "layer"):
            self.run.define_metric(name, summary="none")
        for values in rows.depth_rows(record, self._detail):
            self.run.log(values)

    def keep_report(self, record: CaptureRecord) -> None:
        """Keep the report for `log_kept`; the file stays in the run's folder, for `wandb sync`."""
        path = self._folder / f"activation_report.{self._kept}.json"
        report.write(record, path)
        self._kept += 1
        self._reports.append((path, record))
        if len(self._reports) > self._most_reports:
            self._reports.popleft()[0].unlink(missing_ok=True)

    def log_kept(self, commit: bool = True) -> list[tuple[str, str]]:
        """Log the reports, the tables and the pictures; return what is missing in the run, and why.

        Online this waits for the server. Without `commit` the tables are added to a row, as records are.
        """
        found = findings_table.make_table(list(self._findings))
        self._findings.clear()
        lacks = []
        for what, log in (
            ("report", self._log_reports),
            ("counts of findings in its summary", self._sum_findings),
            ("table of findings", partial(self._log_table, found, commit)),
            ("table of layers", partial(self._log_table, self._layers.take(), commit)),
        ):
            try:
                log()
            except Exception as error:  # noqa: BLE001 - the rows are written; W&B may raise anything
                lacks.append((what, to_one_line(str(error), LONGEST_REASON)))
        if self._series is not None:
            series, self._series = self._series, KeptSeries()
            try:
                self.media, self.lacks_pictures = log_pictures(self.run, series, commit)
            except Exception as error:  # noqa: BLE001 - as above
                lacks.append(("pictures", to_one_line(str(error), LONGEST_REASON)))
        return lacks

    def _sum_findings(self) -> None:
        """Put the counts of all records into the run's summary; the last row would hide an earlier break."""
        if self._causes:
            self.run.summary.update(self._causes)

    @property
    def _folder(self) -> Path:
        return Path(self.run.dir).absolute().parent / "fno-telemetry"

    def _log_table(self, table: Table, commit: bool) -> None:
        if not table.rows:
            return
        if self.redacted:
            path = self._folder / table.file
            with files.whole_file(path) as part:
                part.write_bytes(table.as_csv())
            self._save(path)
            return
        import wandb

        logged = wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
        try:
            with stage_in(self._folder / "staging"):
                self.run.log({table.key: logged}, commit=commit)
        finally:
            _clean_up(logged)

    def _save(self, path: Path) -> None:
        self.run.save(path, base_path=path.parent, policy="now", glob=False)

    def _log_reports(self) -> None:
        """Make each report kept a version of the run's artifact."""
        import wandb

        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{ARTIFACT_TYPE}-{self.run.id}")
        while self._reports:
            path, record = self._reports.popleft()
            if self.redacted:
                self._save(path)
                continue
            artifact = wandb.Artifact(name, ARTIFACT_TYPE, metadata={STEP: record.step})
            # Uploaded from where it is: otherwise W&B makes a copy in the user's home.
            artifact.add_file(str(path), ARTIFACT_FILE, policy="immutable", skip_cache=True)
            self.run.log_artifact(artifact, aliases=["latest", *_alias(record)])

    def wait_until_taken(self) -> None:
        """Return when W&B's own process has received everything that was written."""
        # It answers in order, so everything that was sent before this request has arrived.
        _ = self.run.step

    def _define(self, names: Iterable[str], step_metric: str | None) -> None:
        """Define what is new: one glob per statistic, which do not overlap, and each plain name.

        Those of accuracy are defined by their names, because a training loop of the caller's may have a
        `relative_l2/val` of its own. What was defined without a step, for a record that had none, gets it
        with the first that has one.
        """
        globs = {_glob_of(name) for name in names}
        new = {(glob, step_metric) for glob in globs - {STEP, STEP_OF_VALIDATION}} - self._defined
        self._defined |= new
        for glob in sorted(glob for glob, _ in new):
            statistic = glob.removesuffix("/*")
            if "*" in statistic:
                continue  # W&B allows an asterisk at the end only; this curve is drawn over W&B's own step
            # Thousands of layers' last values would hide the few numbers of the whole model.
            is_of_findings = statistic.removeprefix(f"{keys.VALIDATION}/") == STATISTIC
            summary = "none" if glob != statistic and not is_of_findings else None
            if summary or step_metric:
                self.run.define_metric(glob, step_metric=step_metric, summary=summary)


def _clean_up(table: "LoggedTable") -> None:
    """Remove the folder in which W&B built the table's artifact, which has been staged since.

    Otherwise Python warns about it at the end, with a traceback where warnings are errors.
    """
    # Not a public interface: if it is gone, the warning comes.
    target = getattr(table, "_artifact_target", None)
    folder = getattr(getattr(target, "artifact", None), "_tmp_dir", None)
    if folder is not None:
        folder.cleanup()


def _glob_of(key: str) -> str:
    """Return the glob of a key's statistic in its stage, or the key itself where there is no other place."""
    stage = f"{keys.VALIDATION}/" if key.startswith(f"{keys.VALIDATION}/") else ""
    statistic, _, place = key.removeprefix(stage).partition("/")
    return f"{stage}{statistic}/*" if place not in ("", keys.ACCURACY) else key


def _alias(record: CaptureRecord) -> list[str]:
    return [] if record.spelled_step is None else [record.spelled_step.replace(" ", "-")]
