"""A saved workspace, as the server gets it and as wandb-workspaces itself reads it back."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from fno_telemetry import keys
from fno_telemetry.errors import MissingExtra, OptionError, SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.how_to_look import how_to_look
from fno_telemetry.sinks.wandb.rows import STEP, model_scalars, row
from fno_telemetry.sinks.wandb.run_notes import NOTE, KnownRun, runs_in
from fno_telemetry.sinks.wandb.sink import WandbRun
from fno_telemetry.sinks.wandb.workspace import MODEL_SECTION, save_workspace, sections_of
from support import wandb_stand_in, wandb_surroundings
from support.sink_runs import write_records

KEY = wandb_stand_in.API_KEY


@pytest.fixture
def on_disk(tmp_path: Path) -> KnownRun:
    """An online run of a server that nobody asks."""
    return KnownRun(
        tmp_path, "r", "online", entity="e", project="p", url=f"{wandb_surroundings.NOWHERE}/e/p/runs/r"
    )


def capture(folder: Path, *records, **options) -> list[KnownRun]:
    write_records(WandbRun(**options), RunContext(folder, experiment="demo"), *records)
    return runs_in(folder)


def read_back(url: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from wandb_workspaces.workspaces import Workspace
    return Workspace.from_url(url)


@pytest.mark.usefixtures("with_pictures")
def test_every_curve_of_a_statistic_is_in_its_section_over_the_checkpoints_step(
    server, alone, record, examples
):
    records = [examples.at_step(record, step) for step in (1000, 2000)]
    runs = capture(alone, *records, project="neural operators", entity="lab")
    saved = save_workspace(runs, records)
    [name] = server.views
    asked = name.removeprefix("nw-").removesuffix("-v")
    assert saved.url == f"{server.url}/lab/neural%20operators?nw={asked}"
    assert saved.left_out == ()
    assert server.unknown == []
    workspace = read_back(saved.url.replace("%20", " "))
    assert (workspace.entity, workspace.project, workspace.name) == (
        "lab",
        "neural operators",
        "fno-telemetry",
    )
    assert workspace.settings.x_axis == STEP
    expected: dict[str, list[str]] = {MODEL_SECTION: list(model_scalars(record))}
    for key in row(record).scalars:
        if "/" in key:
            expected.setdefault(key.partition("/")[0], []).append(key)
    whole, pictures, *others = workspace.sections
    # What differs between experiments stands below the numbers of each, and then there are the pictures.
    *lines, comparer = whole.panels
    assert type(comparer).__name__ == "RunComparer"
    assert pictures.name == "pictures"
    keys_of_pictures = [key for panel in pictures.panels for key in panel.media_keys]
    assert keys_of_pictures[:3] == ["pictures/01_depth", "pictures/02_spectrum", "pictures/03_curves"]
    assert keys_of_pictures[-1] == "pictures/page"
    assert runs[0].media.split(",") == keys_of_pictures
    found = {
        name: [metric.name for panel in panels for metric in panel.y]
        for name, panels in [(whole.name, lines), *((section.name, section.panels) for section in others)]
    }
    assert found == expected
    assert list(found)[:4] == [MODEL_SECTION, "low_frequency_fraction", "spectral_share", "update_ratio"]
    assert [section.is_open for section in workspace.sections] == [True] * 4 + [False] * (len(found) - 3)
    for section in workspace.sections:
        assert section.panel_settings.x_axis == STEP
        assert {panel.x.name for panel in section.panels if hasattr(panel, "x")} <= {STEP}
    assert [panel.title for panel in others[0].panels] == [
        key.removeprefix("low_frequency_fraction/") for key in expected["low_frequency_fraction"]
    ]


def test_layers_are_in_the_order_in_which_they_finish(record):
    sections, _ = sections_of([record], "full")
    in_order = sorted(record.modules, key=lambda module: module.order)
    measured = [keys.record_place(module) for module in in_order if module.stats.get("rms") is not None]
    assert len(measured) > 10
    places = [key.removeprefix("rms/") for key in sections["rms"]]
    assert [place for place in places if place in measured] == measured


def test_a_view_that_is_there_is_never_changed_and_the_last_one_is_shown(server, alone, record):
    runs = capture(alone, record)
    first, second = save_workspace(runs, [record]), save_workspace(runs, [record])
    assert first.url != second.url
    assert len(server.views) == 2
    assert how_to_look(runs_in(alone))[-1] == f"W&B workspace: {second.url}"
    assert json.loads((runs[0].folder / NOTE).read_text())["url"] == runs[0].url


def test_the_view_is_of_the_project_of_the_latest_online_run(server, alone, record):
    for project, mode in (("first", "online"), ("second", "online"), ("third", "offline")):
        runs = capture(alone, record, project=project, mode=mode)
    save_workspace(runs, [record])
    assert [view["projectName"] for view in server.views.values()] == ["second"]


def test_what_only_one_checkpoint_has_is_shown_too(record, examples):
    odd = examples.with_stats(examples.at_step(record, 2000), "lifter", only_here=0.5)
    sections, _ = sections_of([record, odd])
    assert sections["only_here"] == ["only_here/lifter"]


def test_where_there_is_no_room_whole_statistics_are_left_out_the_least_telling_first(record):
    everything, none = sections_of([record])
    assert none == ()
    room = sum(map(len, everything.values())) - 1
    sections, left_out = sections_of([record], most_panels=room)
    assert left_out
    assert sections == {name: keys for name, keys in everything.items() if name not in left_out}
    assert sum(map(len, sections.values())) <= room
    assert {MODEL_SECTION, "update_ratio", "rms"} <= sections.keys()


def test_offline_runs_alone_are_refused(alone, record):
    runs = capture(alone, record, mode="offline")
    with pytest.raises(OptionError, match="needs an online run, and the runs here are offline"):
        save_workspace(runs, [record])
    redacted = KnownRun(alone, "r", "online", project="p")
    with pytest.raises(OptionError, match="no address of an online run is recorded here"):
        save_workspace([redacted], [record])


def test_without_a_step_there_is_nothing_to_draw(on_disk, record, examples):
    with pytest.raises(
        OptionError, match="no report here has a step, and a workspace draws curves over steps"
    ):
        save_workspace([on_disk], [examples.at_step(record, None)])


@pytest.mark.parametrize(("package", "extra"), [("wandb_workspaces", "workspaces"), ("wandb", "wandb")])
def test_without_the_package_the_extra_is_named(on_disk, record, monkeypatch, package, extra):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'fno-telemetry\[{extra}\]'\.$"):
        save_workspace([on_disk], [record])


def test_without_credentials_nothing_is_asked(alone, on_disk, record):
    with pytest.raises(
        SinkUnavailable, match=r"cannot save a workspace: no credentials for .*run `wandb login`"
    ):
        save_workspace([on_disk], [record])


def test_another_server_than_the_runs_is_not_written_to(server, on_disk, record):
    with pytest.raises(SinkUnavailable, match=rf"W&B is set to {server.url}: set WANDB_BASE_URL"):
        save_workspace([on_disk], [record])
    assert server.received == []


@pytest.mark.parametrize("silent", [True, False], ids=["never answers", "refuses"])
def test_a_server_that_is_not_there_is_one_line_in_bounded_time(run_program, silent):
    with wandb_stand_in.StandIn(silent=True) as server:
        if not silent:
            server.stop()
        done = run_program(
            f"""
from fno_telemetry.sinks.wandb import KnownRun, save_workspace
run = KnownRun(Path("r"), "r", "online", entity="e", project="p", url="{server.url}/e/p/runs/r")
try:
    save_workspace([run], [record])
except ft.SinkUnavailable as error:
    print(error)
""",
            timeout=100,  # a busy machine takes its time to start W&B's own process
            WANDB_BASE_URL=server.url,
            WANDB_API_KEY=KEY,
            WANDB_HTTP_TIMEOUT="1",
        )
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    # Said before W&B's own process starts, which may never end without an answer.
    assert line == f"W&B cannot save a workspace: {server.url} " + (
        "does not answer" if silent else "cannot be reached"
    )


def test_importing_it_loads_neither_package():
    program = (
        "import sys, fno_telemetry.sinks.wandb.workspace; "
        "print([name for name in ('torch', 'wandb', 'wandb_workspaces') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
