"""Where a capture's report goes, and its log."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import files, report
from fno_telemetry_cli.capturing.run_log import RunLog

_LONGEST_NAME = 200  # bytes; most file systems take 255, and a temporary file has a longer name


@dataclass(frozen=True)
class Target:
    """A folder, the report's name in it, and the name of the run in dashboards."""

    folder: Path
    name: str
    experiment: str
    shard: str | None = None  # of a capture that is one of several into this folder

    @classmethod
    def of(
        cls, folder: Path | None, name: str, experiment: str | None, writes: bool, shard: str | None = None
    ) -> "Target":
        """Return where to write; OptionError when it cannot be written, unless `writes` is false."""
        if folder is None:
            raise ft.OptionError("--output DIR is required: the folder for the report")
        if Path(name).name != name or not Path(name).stem or Path(name).suffix != ".json":
            raise ft.OptionError(
                f"--output-json-name {name!r}: expected a file name that ends in .json; "
                "the folder is that of --output"
            )
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise ft.OptionError(
                f"--output-json-name: longer than {_LONGEST_NAME} bytes; choose a shorter name"
            )
        target = cls(folder, name, experiment or folder.resolve().name, shard)
        if writes:
            target._check()
        return target

    @property
    def report(self) -> Path:
        """The path of the report."""
        return self.folder / self.name

    def reports(self, labels: Iterable[str]) -> list[Path]:
        """Return the paths of the reports of a series."""
        return [self.folder / report.series_report_name(self.name, label) for label in labels]

    @staticmethod
    def resampled(report_of: Path, factor: float) -> Path:
        """Return the path of the report at another resolution, next to that of the fields as they are."""
        return report_of.with_name(report.resampled_report_name(report_of.name, factor))

    @property
    def log(self) -> Path:
        """The path of the log."""
        return self.report.with_suffix(".log" if self.shard is None else f".{self.shard}.log")

    @property
    def run(self) -> ft.RunContext:
        """What sinks get to know about the run."""
        return ft.RunContext(self.folder, self.name, self.experiment)

    def replace_log(self, log: RunLog | None) -> list[str]:
        """Write the log, or with None remove that of an earlier report; return a line if that fails."""
        try:
            if log is None:
                self.log.unlink(missing_ok=True)
            else:
                log.write(self.log)
        except (ft.ReportError, OSError) as error:
            return [f"warning: the report is written, its log is not: {error}"]
        return []

    def refuse_existing(self, reports: Sequence[Path]) -> None:
        """Raise OptionError when one of these cannot be a new file."""
        for path in reports:
            if path.is_dir():
                raise ft.OptionError(f"--output {self.folder}: {path.name} is a folder in it; move it away")
            if len(os.fsencode(path.name)) > _LONGEST_NAME:
                raise ft.OptionError(
                    f"{path}: the name is longer than {_LONGEST_NAME} bytes; rename the checkpoint"
                )
        if existing := [path for path in reports if path.exists()]:
            more = f" and {len(existing) - 1} more exist" if len(existing) > 1 else " exists"
            raise ft.OptionError(
                f"{existing[0]}{more}; add --force to replace reports, or choose --output-json-name"
            )

    def _check(self) -> None:
        if (reason := files.why_unwritable(self.folder)) is not None:
            raise ft.OptionError(
                f"--output {self.folder}: cannot be written: {reason}; choose another folder"
            )
        for path in (self.report, self.log):
            if path.is_dir():
                raise ft.OptionError(f"--output {self.folder}: {path.name} is a folder in it; move it away")
