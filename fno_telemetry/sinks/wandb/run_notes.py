"""What is known about the W&B runs under a capture's folder, from a note in the folder of each run.

The note has the names that W&B's server uses; W&B itself keeps them in a log that only its package can read.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fno_telemetry import files, report
from fno_telemetry.errors import ReportError
from fno_telemetry.wording import is_printable

SCHEMA = "fno-telemetry-wandb-run/1"

NOTE = Path("fno-telemetry", "run.json")
"""Where the note is in the folder of a run, next to the reports that become artifacts of the run."""

UNFINISHED = "the capture did not finish it"

RunMode = Literal["online", "offline", "failed"]
"""`failed` is no run: it could not be started online."""

_RUN_FOLDER = re.compile(r"(offline-)?run-\d{8}_\d{6}-.+", re.DOTALL)


@dataclass(frozen=True)
class KnownRun:
    """A W&B run on disk; what is unknown is None.

    `mode` is online or offline. `joins` is the id of the online run that an offline run
    continues once it is uploaded. `problem` says why something is missing on the server or in the run.
    `workspace` is the address of the view that was saved for its project. `detail` says whether the run has
    the overview of each record or everything. `media` are the keys of its pictures and its page, with commas.
    """

    folder: Path
    id: str
    mode: RunMode
    experiment: str | None = None
    group: str | None = None
    entity: str | None = None
    project: str | None = None
    url: str | None = None
    project_url: str | None = None
    joins: str | None = None
    problem: str | None = None
    workspace: str | None = None
    detail: str | None = None
    media: str | None = None

    @property
    def capture_folder(self) -> Path:
        """The folder of the capture, which the report is in too."""
        return self.folder.parent.parent if self.folder.parent.name == "wandb" else self.folder.parent

    @property
    def is_synced(self) -> bool:
        """Whether `wandb sync` has uploaded it, which leaves a marker file next to the log."""
        return any(self.folder.glob("*.wandb.synced"))

    def document(self) -> dict[str, Any]:
        """Return all fields for a JSON document."""
        return {**asdict(self), "folder": str(self.folder), "synced": self.is_synced}


def write(run: KnownRun, redacted: bool) -> None:
    """Write the note of a run; a `redacted` one names no server, account or path."""
    if redacted:
        # After the colon comes W&B's own text, which may name anything.
        problem = run.problem and run.problem.partition(":")[0]
        run = replace(run, entity=None, url=None, project_url=None, workspace=None, problem=problem)
    values = asdict(run)
    del values["folder"]
    with files.whole_file(run.folder / NOTE) as part:
        text = report.dumps({"schema": SCHEMA, **values})
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def runs_in(path: str | Path, *, below: bool = False) -> list[KnownRun]:
    """Return the runs under a folder, or of the experiment whose report `path` is, the earliest first.

    With `below`, a folder without runs may hold folders of captures; the runs of each are then together.
    ReportError when there is no run. Neither wandb nor torch is imported.
    """
    path = Path(path)
    experiment = None
    if not path.is_dir():
        experiment = report.load_report(path).provenance.get("experiment")
    folder = path if path.is_dir() else path.parent
    for place in (folder / "wandb", folder):
        found = sorted(_runs(place), key=lambda run: _started(run.folder))
        if found:
            return [run for run in found if experiment and run.experiment == experiment] or found
    if below and path.is_dir() and (found := list(_runs_below(path))):
        return found
    raise ReportError(
        f"{path}: no W&B run in this folder; "
        f"`fno-telemetry capture --sink wandb --output {folder}` writes one"
    )


def _runs(place: Path) -> Iterator[KnownRun]:
    try:
        folders = list(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        raise ReportError(f"{place}: cannot be read: {error.strerror or error}") from error
    for folder in folders:
        log = next(folder.glob("run-*.wandb"), None)
        if log is None or not _RUN_FOLDER.fullmatch(folder.name):
            continue
        mode: RunMode = "offline" if folder.name.startswith("offline-") else "online"
        # Not from the folder's name, to which W&B adds a number when there are two.
        run = _noted(folder) or KnownRun(folder, log.stem.removeprefix("run-"), mode)
        if run.mode != "failed":
            yield run


def _runs_below(folder: Path) -> Iterator[KnownRun]:
    for capture in sorted(folder.iterdir()):
        with contextlib.suppress(ReportError, OSError):  # of others, which may be closed to us
            yield from sorted(_runs(capture / "wandb"), key=lambda run: _started(run.folder))


def _started(folder: Path) -> str:
    return folder.name.partition("run-")[2]


def _noted(folder: Path) -> KnownRun | None:
    """Return the run in the note; None when there is no note that this version can read."""
    try:
        document = report.read_document(folder / NOTE)
    except ReportError:
        return None
    if document.get("schema") != SCHEMA:
        return None
    return _run(folder, document)


def _run(folder: Path, document: Mapping[str, Any]) -> KnownRun | None:
    names = {field.name for field in fields(KnownRun)} - {"folder"}
    values = {name: value for name, value in document.items() if name in names and value is not None}
    # These go to a terminal, and the folder may come from somebody else.
    usable = all(isinstance(value, str) and is_printable(value) for value in values.values())
    if not usable or "id" not in values or values.get("mode") not in get_args(RunMode):
        return None
    return KnownRun(folder, **values)
