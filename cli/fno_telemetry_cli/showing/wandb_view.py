"""`view --wandb`: where the W&B runs of a capture are, and the commands that show and upload them."""

import contextlib
import io
from importlib.util import find_spec
from pathlib import Path

from fno_telemetry.sinks import wandb
from fno_telemetry_cli.reports_in import EVERY_STAGE, reports_below
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_json, print_lines, print_notes


def show_wandb(path: Path, save_workspace: bool, as_json: bool, quiet: bool) -> None:
    """Print how to open the runs of a capture; save a workspace first if that was asked for."""
    runs = wandb.runs_in(path, below=True)
    notes = []
    if save_workspace:
        left_out = _save_workspace(path, runs)
        if left_out:
            notes.append(f"the workspace has no room for: {', '.join(left_out)}")
        runs = wandb.runs_in(path, below=True)
    lines = wandb.how_to_look(runs)
    if as_json:
        print_json(
            {
                "schema": "fno-telemetry-wandb/1",
                "runs": [run.document() for run in runs],
                "look": lines,
            }
        )
    else:
        print_lines(lines)
    if not _has_wandb() and any("wandb leet" in line or "wandb sync" in line for line in lines):
        notes.append("the command wandb is not installed: pip install 'fno-telemetry[wandb]'")
    if not quiet:
        print_notes(notes, style="yellow")


def _save_workspace(path: Path, runs: list[wandb.KnownRun]) -> tuple[str, ...]:
    """Save a workspace and return what it has no room for; W&B's own output is dropped."""
    reports, _ = reports_below(path, EVERY_STAGE)
    with keep_stdout_clean(), contextlib.redirect_stderr(io.StringIO()):
        return wandb.save_workspace(runs, reports.values()).left_out


def _has_wandb() -> bool:
    # The folder of the runs is called wandb too, and Python takes it for a package, without an origin.
    spec = find_spec("wandb")
    return spec is not None and spec.origin is not None
