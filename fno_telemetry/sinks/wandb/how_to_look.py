"""The lines that say how to open W&B runs: the same at the end of a capture and later."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from fno_telemetry.sinks.wandb.run_notes import KnownRun

_OF_A_PROJECT = ("W&B project: ", "W&B workspace: ")


def how_to_look(runs: Sequence[KnownRun]) -> list[str]:
    """Return a line for each thing to open or to run: addresses, `wandb leet`, `wandb sync`.

    Where the runs are of captures in several folders, the lines of each are indented under its name, and
    those about all of them come last.
    """
    by_folder: dict[Path, list[KnownRun]] = {}
    for run in runs:
        by_folder.setdefault(run.capture_folder, []).append(run)
    if len(by_folder) < 2:
        return _lines(runs)
    lines: list[str] = []
    last: list[str] = []
    for folder, members in by_folder.items():
        names = ", ".join(dict.fromkeys(run.experiment for run in members if run.experiment))
        lines.append(f"{names or folder.name}, in {folder}:")
        for line in _lines(members):
            shared = line.startswith(_OF_A_PROJECT)
            (last if shared else lines).append(line if shared else f"  {line}")
    return [*lines, *dict.fromkeys(last), *_upload_of_all(runs)]


def _lines(runs: Sequence[KnownRun]) -> list[str]:
    online = [run for run in runs if run.mode == "online"]
    offline = [run for run in runs if run.mode != "online"]
    return [*_addresses(online), *_unfinished_uploads(online), *_in_the_terminal(offline), *_uploads(offline)]


def _upload_of_all(runs: Sequence[KnownRun]) -> list[str]:
    """Return the line that uploads the offline runs of several captures, where one command can."""
    left = [run for run in runs if run.mode != "online" and not run.is_synced]
    if len({run.capture_folder for run in left}) < 2 or any(run.joins for run in left):
        return []
    projects = {run.project or "of each run" for run in left}
    together = f" into the project {projects.pop()}, which compares them" if len(projects) == 1 else ""
    return [f"to upload all of them{together}: wandb sync {_paths(left)}"]


def _addresses(runs: Sequence[KnownRun]) -> list[str]:
    # A run that was continued has a folder for each time.
    by_url = {run.url: run for run in runs if run.url}
    groups: dict[tuple[str | None, str | None], list[KnownRun]] = {}
    for run in by_url.values():
        groups.setdefault((run.project_url, run.group), []).append(run)
    lines, projects = [], []
    for (project, group), members in groups.items():
        if len(members) > 1:
            lines.append(f"W&B: {len(members)} runs in group {group!r}: {project}")
        else:
            lines.append(f"W&B run: {members[0].url}")
            projects.append(project)
    lines += [f"W&B project: {project}" for project in dict.fromkeys(projects) if project]
    lines += [f"W&B workspace: {url}" for url in dict.fromkeys(run.workspace for run in runs) if url]
    for run in runs:
        if not run.url:
            lines.append(f"W&B run {run.id} is online; its address is not recorded here")
            lines.append(f"wandb leet {_quoted(run.folder)}")
    return lines


def _unfinished_uploads(runs: Iterable[KnownRun]) -> list[str]:
    return [
        f"W&B: {run.problem}; to upload the rest: wandb sync --include-online {_quoted(run.folder)}"
        for run in runs
        if run.problem and not run.is_synced
    ]


def _in_the_terminal(runs: Sequence[KnownRun]) -> list[str]:
    if not runs:
        return []
    lines = [f"wandb leet {_quoted(runs[0].folder if len(runs) == 1 else runs[0].folder.parent)}"]
    return lines + [f"W&B run {run.id}: {run.problem}" for run in runs if run.problem]


def _uploads(runs: Sequence[KnownRun]) -> list[str]:
    left = [run for run in runs if not run.is_synced]
    if runs and not left:
        return ["already uploaded by wandb sync"]
    lines = []
    for joins in dict.fromkeys(run.joins for run in left):
        together = [run for run in left if run.joins == joins]
        option = f"--id {shlex.quote(joins)} " if joins else ""
        it = "it" if len(together) == 1 else "them"
        lines.append(f"to upload {it}: wandb sync {option}{_paths(together)}")
    return lines


def _paths(runs: Sequence[KnownRun]) -> str:
    """Return the runs' folders for a command line: as a pattern, if it matches just these."""
    folder = runs[0].folder.parent
    patterns = ((folder, "offline-run-*"), (folder.parent.parent, f"*/{folder.name}/offline-run-*"))
    for place, pattern in patterns:
        if len(runs) > 1 and {run.folder for run in runs} == set(place.glob(pattern)):
            return f"{_quoted(place)}/{pattern}"
    return " ".join(_quoted(run.folder) for run in runs)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
