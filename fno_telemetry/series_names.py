"""How the records of several checkpoints are told apart: in file names and in dashboards."""

from pathlib import PurePath


def label(step: int | None, step_kind: str | None, checkpoint: str | None) -> str:
    """Return "step1000" or "epoch3" where the step is known, else the checkpoint's name, else "untrained"."""
    if step is not None:
        return f"{step_kind or 'step'}{step}"
    return checkpoint or "untrained"


def report_name(name: str, label: str) -> str:
    """Return the name of one report of several: `activation_report.json`, `activation_report.step1000.json`.

    The label stands before the ending, so that the reports of a series sort beside one another.
    """
    path = PurePath(name)
    return f"{path.stem}.{label}{path.suffix}"
