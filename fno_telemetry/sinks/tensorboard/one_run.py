"""One run in TensorBoard, from its first record to its pictures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.dashboard_pictures import are_possible, draw
from fno_telemetry.sinks.earlier_reports import EarlierReports, Point, ReportOnDisk, point_of
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.overview import Detail, at_detail
from fno_telemetry.sinks.tensorboard import overview_text
from fno_telemetry.sinks.tensorboard.event_files import TEXT_TAG
from fno_telemetry.sinks.tensorboard.markdown import findings_list, table
from fno_telemetry.sinks.tensorboard.overview_text import Earlier
from fno_telemetry.sinks.tensorboard.run_folders import OwnRun
from fno_telemetry.sinks.tensorboard.summaries import Charts, scalars, write_histograms

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FINDINGS_TAG = "findings"
"""The tag of the findings of a diagnosed record, shown as `findings/text_summary`."""

MOST_TABLE_ROWS = 64
"""A table of more layers has those of the overview alone, unless the detail is "full"."""


@dataclass
class OneRun:
    """One TensorBoard run: its writer, its charts, the points written so far and what was found."""

    own: OwnRun | None
    writer: "Callable[[], SummaryWriter]"
    detail: Detail
    charts: Charts
    series: KeptSeries | None  # None: no pictures
    is_redacted: bool = False
    points: list[Point] = field(default_factory=list)  # those written so far
    sources: list[ReportOnDisk | None] = field(default_factory=list)  # the report of each point
    earlier: Earlier = field(default_factory=Earlier)

    @property
    def is_visible(self) -> bool:
        """Whether something was written, and not only into a hidden folder."""
        return bool(self.points) and (self.own is None or self.own.is_visible)

    def write(self, record: CaptureRecord, layout: bool, source: ReportOnDisk | None = None) -> None:
        """Write one record and flush it; `source` is the report of it, None if there is none."""
        writer, step = self.writer(), record.step or 0
        shown = at_detail(record, self.detail)
        for tag, value in scalars(shown):
            writer.add_scalar(tag, value, step)
        write_histograms(writer, shown, step)
        if self.charts.add(record) and layout:
            writer.add_custom_scalars(self.charts.layout)
        texts = {
            TEXT_TAG: table(record if len(record.modules) <= MOST_TABLE_ROWS else shown),
            overview_text.TAG: overview_text.overview_text(
                record,
                self.earlier,
                folder=None if source is None or self.is_redacted else source.path.parent,
                has_pictures=self.series is not None and are_possible(),
            ),
            FINDINGS_TAG: findings_list(record),
        }
        for tag, text in texts.items():
            if text is not None:
                writer.add_text(keys.of_stage(tag, record), text, step)
        writer.flush()
        self.points.append(point_of(record))
        self.sources.append(source)
        self.earlier.add(record)
        if self.series is not None:
            self.series.add(record)

    def add_pictures(self) -> list[str]:
        """Write the pictures of all records at the last step; return a line about what is missing."""
        if self.series is None:
            return []
        writer = self.writer()
        if getattr(writer, "all_writers", writer) is None:
            return []  # the caller has closed it, and more would begin another file
        drawn, missing = draw(self.series)
        for picture in drawn:
            writer.add_image(picture.key, picture.pixels, self.points[-1][0], dataformats="HWC")
        writer.flush()
        return [] if missing is None else [f"TensorBoard lacks pictures of this run: {missing}"]

    def complete(self, earlier: EarlierReports, layout: bool) -> None:
        """Write the reports that are not in the run yet; all of them again where one belongs in between.

        Reports come in between when several captures write into the folder at the same time.
        """
        there = earlier.by_point()
        reports = {source.path for source in self.sources if source is not None}
        if len(reports) < len(self.sources) or not there.keys() >= set(self.points):
            # No sink writes reports, or each replaced the one before: only this run has all records.
            rest = earlier.rest()
        else:
            after = {point: found for point, found in there.items() if point > self.points[-1]}
            before = [(point, there[point]) for point in sorted(there.keys() - after.keys())]
            is_in_order = before == list(zip(self.points, self.sources, strict=True))
            if not is_in_order or self.own is None or not self.own.is_undisturbed():
                self._start_over()
                after = there
            rest = earlier.read(after)
        for record, source in rest:
            self.write(record, layout, source)

    def _start_over(self) -> None:
        if self.own is not None:
            self.own.start_over()
        self.charts, self.earlier = Charts(self.detail), Earlier()
        self.series = None if self.series is None else KeptSeries()
        self.points, self.sources = [], []

    def flush(self) -> None:
        """Write what is buffered to disk."""
        if self.points:
            self.writer().flush()

    def close(self, ok: bool) -> None:
        """Close a writer of its own, flush the caller's."""
        if self.own is not None:
            self.own.close(ok)
        else:
            self.flush()
