"""`compare --sink`: writes the compared records into dashboards, a run for each folder they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import files
from fno_telemetry.sinks import Outcome
from fno_telemetry_cli.capturing.checkpoint_series import distinguish
from fno_telemetry_cli.options.output import DashboardOptions, WandbOptions
from fno_telemetry_cli.sink_choice import choose_sinks

Found = Sequence[tuple[Path, ft.CaptureRecord]]


@dataclass(frozen=True)
class Replays:
    """The dashboards that compared records are written into."""

    sinks: tuple[str, ...]
    options: tuple[str, ...]
    wandb: WandbOptions
    folder: Path
    detail: str | None

    @classmethod
    def of(cls, asked: DashboardOptions, wandb: WandbOptions) -> "Replays":
        """Return what was asked for; TelemetryError, one line, when it cannot be done."""
        sinks, folder = asked.sink or [], asked.output
        if folder is None:
            raise ft.OptionError("--output DIR is required with --sink: the folder of the dashboards' files")
        if not sinks:
            raise ft.OptionError("--output is for the dashboards of --sink; add --sink tensorboard, or wandb")
        named = ",".join(sinks).replace(" ", "").split(",")
        if own := [name for name in ("json", "history") if name in named]:
            raise ft.OptionError(
                f"--sink {own[0]}: the reports are there already; name tensorboard, wandb, …"
            )
        if (reason := files.why_unwritable(folder)) is not None:
            raise ft.OptionError(f"--output {folder}: cannot be written: {reason}; choose another folder")
        replays = cls(tuple(sinks), tuple(asked.sink_option or ()), wandb, folder, asked.detail)
        replays._make_sinks()  # so that a wrong name is refused before anything runs
        return replays

    def run(self, found: Found) -> Outcome:
        """Write all records, by ascending step within a run; return the status of each sink over all runs."""
        status: dict[str, str] = {}
        lines: list[str] = []
        for name, records in _by_run(found).items():
            sinks = ft.FanOut(self._make_sinks())
            origin = f"replayed in {self.folder.resolve()}"
            sinks.open(ft.RunContext(self.folder, experiment=name, series=True, origin=origin))
            try:
                for record in records:
                    sinks.write(record)
            except BaseException:
                sinks.close(ok=False)
                raise
            outcome = sinks.close(ok=True)
            for sink, reason in outcome.status.items():
                status[sink] = reason if status.get(sink, "ok") == "ok" else status[sink]
            lines += outcome.lines
        return Outcome(status, list(dict.fromkeys(lines)))

    def _make_sinks(self) -> list[ft.Sink]:
        group = self.folder.resolve().name
        return choose_sinks(self.sinks, self.wandb, self.options, always=(), group=group, detail=self.detail)


def _by_run(found: Found) -> dict[str, list[ft.CaptureRecord]]:
    """Return the records of each folder, in order of step, by a name that distinguishes the folders."""
    folders = list(dict.fromkeys(path.resolve().parent for path, _ in found))
    runs: dict[str, list[ft.CaptureRecord]] = {}
    for folder, name in zip(folders, distinguish(folders), strict=True):
        records = [record for path, record in found if path.resolve().parent == folder]
        runs[name] = sorted(records, key=lambda record: -1 if record.step is None else record.step)
    return runs
