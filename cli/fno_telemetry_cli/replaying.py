"""`compare --sink`: the compared records once more into dashboards, a run for each folder they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry import files
from fno_telemetry.sinks import Outcome
from fno_telemetry_cli.checkpoint_series import distinguish
from fno_telemetry_cli.sink_choice import WandbOptions, choose_sinks

Found = Sequence[tuple[Path, ft.CaptureRecord]]


@dataclass(frozen=True)
class Replays:
    """Where records go once more."""

    sinks: tuple[str, ...]
    wandb: WandbOptions
    folder: Path

    @classmethod
    def of(cls, sinks: Sequence[str], wandb: WandbOptions, folder: Path | None) -> "Replays":
        """Return what was asked for; TelemetryError in one line when it cannot be."""
        if folder is None:
            raise ft.OptionError("--output DIR is required with --sink: the folder of the dashboards' files")
        if not sinks:
            raise ft.OptionError("--output is for the dashboards of --sink; add --sink tensorboard, or wandb")
        if "json" in ",".join(sinks).replace(" ", "").split(","):
            raise ft.OptionError("--sink json: the reports are there already; name tensorboard, wandb, …")
        if (reason := files.why_unwritable(folder)) is not None:
            raise ft.OptionError(f"--output {folder}: cannot be written: {reason}; choose another folder")
        replays = cls(tuple(sinks), wandb, folder)
        replays._made()  # so that a wrong name is known before anything runs
        return replays

    def run(self, found: Found) -> Outcome:
        """Write all records, by ascending step within a run; return how each sink fared in all runs."""
        status: dict[str, str] = {}
        lines: list[str] = []
        for name, records in _by_run(found).items():
            sinks = ft.FanOut(self._made())
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

    def _made(self) -> list[ft.Sink]:
        return choose_sinks(self.sinks, self.wandb, always=(), group=self.folder.resolve().name)


def _by_run(found: Found) -> dict[str, list[ft.CaptureRecord]]:
    """Return the records of each folder, in order of step, by a name that tells the folders apart."""
    folders = list(dict.fromkeys(path.resolve().parent for path, _ in found))
    runs: dict[str, list[ft.CaptureRecord]] = {}
    for folder, name in zip(folders, distinguish(folders), strict=True):
        records = [record for path, record in found if path.resolve().parent == folder]
        runs[name] = sorted(records, key=lambda record: -1 if record.step is None else record.step)
    return runs
