"""A saved view of a W&B project: a section for each statistic, its curves over `checkpoint_step`."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from fno_telemetry.errors import MissingExtra, OptionError, ReportError, SinkUnavailable
from fno_telemetry.findings import STATISTIC
from fno_telemetry.keys import VALIDATION
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.dashboard_pictures import GROUP
from fno_telemetry.sinks.overview import FIRST, Detail, rank_among_first
from fno_telemetry.sinks.wandb import rows, run_notes
from fno_telemetry.sinks.wandb.run_notes import KnownRun
from fno_telemetry.sinks.wandb.session import LONGEST_REASON, without_error_reports
from fno_telemetry.sinks.wandb.starting import app_address, require_wandb, why_no_credentials, why_unreachable
from fno_telemetry.wording import to_one_line

NAME = "fno-telemetry"

MODEL_SECTION = "whole model"

OPEN_SECTIONS = (MODEL_SECTION, GROUP, *FIRST)
"""The whole model, the pictures, the low frequencies and the share of the spectral branch."""

MOST_PANELS = 2_000
"""The browser loads a view as one document, of which each panel takes about 250 bytes."""


@dataclass(frozen=True)
class SavedWorkspace:
    """The address of a saved view, and the statistics for which it has no room."""

    url: str
    left_out: tuple[str, ...]


def save_workspace(runs: Sequence[KnownRun], records: Iterable[CaptureRecord]) -> SavedWorkspace:
    """Save a new view of the project of the latest online run, with what the records hold.

    It has the curves that the run has: those of the overview, or all. Layers are in the order of completion,
    the low frequencies and the share of the spectral branch first. Before them are the numbers of the whole
    model with what differs between runs, and the pictures; these sections are open.
    No view that exists is changed. The run's note keeps the address.

    Raises MissingExtra without wandb-workspaces, OptionError without an online run or a checkpoint's step,
    SinkUnavailable when the server cannot be reached. The user is never asked for anything.
    """
    run = _latest_online(runs)
    # Earlier versions sent everything and noted no detail.
    sections, left_out = sections_of(records, "overview" if run.detail == "overview" else "full")
    _require_workspaces()
    # Also around the requests: whatever starts W&B must not start its error reports.
    with without_error_reports():
        _refuse_unreachable(run)
        try:
            url = _save(run, sections)
        except Exception as error:
            raise SinkUnavailable(
                f"W&B cannot save a workspace: {to_one_line(str(error), LONGEST_REASON)}"
            ) from error
    try:
        run_notes.write(replace(run, workspace=url), redacted=False)
    except ReportError as error:
        raise ReportError(
            f"the workspace is saved, {url}, but its address cannot be kept: {error}"
        ) from error
    return SavedWorkspace(url, left_out)


def sections_of(
    records: Iterable[CaptureRecord], detail: Detail = "overview", most_panels: int = MOST_PANELS
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return section -> keys of its curves, and the statistics for which there was no room."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        if record.step is None:
            continue
        for key in rows.row(record, detail).scalars:
            section = key.partition("/")[0] if "/" in key else MODEL_SECTION
            found.setdefault(section, {})[key] = None
    if not found:
        raise OptionError("no report here has a step, and a workspace draws curves over steps")
    for section in (MODEL_SECTION, VALIDATION):
        for key in (rows.STEP, rows.STEP_OF_VALIDATION):
            found.get(section, {}).pop(key, None)
    sections, left_out, room = {}, [], most_panels
    for section, names in sorted(found.items(), key=lambda item: _place(item[0])):
        if len(names) > room:
            left_out.append(section)
            continue
        room -= len(names)
        sections[section] = list(names)
    return sections, tuple(left_out)


def _place(section: str) -> tuple[bool, int, bool]:
    """Return the place of a section; those with the same place are in the order of rank."""
    return section != MODEL_SECTION, rank_among_first(section), section != STATISTIC


def _x_axis(section: str) -> str:
    return rows.STEP_OF_VALIDATION if section == VALIDATION else rows.STEP


def _latest_online(runs: Sequence[KnownRun]) -> KnownRun:
    known = [run for run in runs if run.url and run.entity and run.project]
    if not known:
        online = any(run.mode == "online" for run in runs)
        seen = "no address of an online run is recorded here" if online else "the runs here are offline"
        raise OptionError(f"a workspace needs an online run, and {seen}; capture with the W&B mode 'online'")
    return known[-1]


def _require_workspaces() -> None:
    require_wandb()
    try:
        with warnings.catch_warnings():
            # It uses pydantic in a way that pydantic deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.workspaces  # noqa: F401 - to see whether it is installed
    except ImportError as error:
        raise MissingExtra(
            "A W&B workspace needs wandb-workspaces: pip install 'fno-telemetry[workspaces]'."
        ) from error


def _refuse_unreachable(run: KnownRun) -> None:
    """Raise SinkUnavailable where W&B is set to another server than the run's, or would ask for a login."""
    here = app_address()
    if urlsplit(here).netloc != urlsplit(run.url).netloc:
        raise SinkUnavailable(f"the run is at {run.url}, and W&B is set to {here}: set WANDB_BASE_URL")
    reason = why_no_credentials() or why_unreachable()
    if reason is not None:
        raise SinkUnavailable(f"W&B cannot save a workspace: {reason}")


def _save(run: KnownRun, sections: dict[str, list[str]]) -> str:
    from wandb_workspaces import workspaces

    workspace = workspaces.Workspace(
        entity=str(run.entity),
        project=str(run.project),
        name=NAME,
        settings=workspaces.WorkspaceSettings(x_axis=rows.STEP),
        sections=[
            workspaces.Section(
                name=section,
                is_open=section in OPEN_SECTIONS,
                panel_settings=workspaces.SectionPanelSettings(x_axis=_x_axis(section)),
                panels=panels,
            )
            for section, panels in _panels(run, sections)
        ],
    )
    workspace.save()  # type: ignore[no-untyped-call]
    return quote(workspace.url, safe=":/?=&%")


def _panels(run: KnownRun, sections: dict[str, list[str]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the panels of each section; those of pictures come after the numbers of the whole model."""
    from wandb_workspaces.reports.v2.interface import LinePlot, MediaBrowser, RunComparer

    pictures = [] if run.media is None else run.media.split(",")
    before = [MediaBrowser(title=key.partition("/")[2], media_keys=[key]) for key in pictures]
    if before and MODEL_SECTION not in sections:
        yield GROUP, before
    for section, keys in sections.items():
        x = _x_axis(section)
        panels: list[Any] = [LinePlot(title=key.partition("/")[2] or key, x=x, y=[key]) for key in keys]
        if section == MODEL_SECTION:
            yield section, [*panels, RunComparer(diff_only="split")]
            if before:
                yield GROUP, before
        else:
            yield section, panels
