"""Checkpoints that could not be captured, and why."""

from dataclasses import dataclass
from pathlib import Path

import fno_telemetry as ft
from fno_telemetry_cli.options.spelling import spell_options


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be captured."""

    path: Path
    reason: str

    @classmethod
    def of(cls, path: Path, error: ft.TelemetryError) -> "Failure":
        """Return the failure of a checkpoint, its reason in the command's words."""
        return cls(path, spell_options(str(error)))

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(str(self.path)) else f"{self.path}: {self.reason}"
