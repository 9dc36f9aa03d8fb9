"""The pictures and the page of a run in dashboards: which there are, of what, and where they are missing."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fno_telemetry.errors import OptionError
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks import dashboard_pictures
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.dashboard_pictures import MOST_PAGE_BYTES, NAMES, draw, key_of, make_page
from fno_telemetry.sinks.kept_series import FEWEST_RECORDS, MOST_ENTRIES, KeptSeries
from fno_telemetry.sinks.tensorboard import one_run
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support import wandb_surroundings
from support.html_pages import Page
from support.picture_records import deep
from support.sink_runs import write_records

alone, run_program = wandb_surroundings.alone, wandb_surroundings.run_program

pytestmark = pytest.mark.usefixtures("with_pictures")

OF_NO_EXAMPLE = ("dead_channel_fraction", "grad_norm", "update_to_weight")
OF_THE_EXAMPLE = [key_of(name) for name in NAMES if name not in OF_NO_EXAMPLE]


def kept(*records: CaptureRecord) -> KeptSeries:
    series = KeptSeries()
    for record in records:
        series.add(record)
    return series


def steps_of(series: KeptSeries) -> list[int | None]:
    return [record.step for record in series.records]


# --- which pictures


def test_a_series_has_maps_and_a_single_record_has_none(record, examples):
    single, _ = draw(kept(record))
    assert [picture.key for picture in single] == ["pictures/01_depth", "pictures/02_spectrum"]
    series, missing = draw(kept(record, examples.at_step(record, 2000)))
    assert missing is None
    assert [picture.key for picture in series] == OF_THE_EXAMPLE == sorted(OF_THE_EXAMPLE)
    assert all(picture.pixels.dtype == np.uint8 and picture.pixels.shape[2] == 3 for picture in series)
    assert "a column for each of 2 records" in series[3].caption
    # The same record has the same picture.
    again = [kept(record), kept(record, examples.at_step(record, 2000))]
    assert np.array_equal(draw(again[0])[0][0].pixels, single[0].pixels)


def test_where_a_channel_died_there_is_a_map_of_dead_ones(record, examples):
    dead = examples.with_stats(examples.at_step(record, 2000), "lifter", dead_channel_fraction=0.5)
    names = [name for name, picture in dashboard_pictures._list_pictures(kept(record, dead)) if picture]
    assert [key_of(name) for name in names] == sorted([*OF_THE_EXAMPLE, key_of("dead_channel_fraction")])


def test_of_nothing_there_is_nothing():
    assert draw(KeptSeries()) == ([], None)
    assert make_page(KeptSeries()) == (None, None)


def test_a_validation_has_no_pictures_of_its_own(record):
    from fno_telemetry.records import freeze_mapping

    validation = replace(record, training=freeze_mapping({"stage": "val"}))
    assert validation.stage == "val"
    assert kept(validation).last is None
    assert kept(record, validation).last is record


def test_a_picture_that_cannot_be_drawn_costs_no_other(record, monkeypatch):
    from fno_telemetry import pictures

    def fail(record: CaptureRecord) -> None:
        raise RuntimeError("no font\nanywhere")

    monkeypatch.setattr(pictures, "spectrum_by_layer", fail)
    drawn, missing = draw(kept(record))
    assert [picture.key for picture in drawn] == ["pictures/01_depth"]
    assert missing.startswith("they cannot be drawn: RuntimeError: no font anywhere")


def test_a_page_that_is_too_large_is_left_out(record, monkeypatch):
    from fno_telemetry.page import rendering

    monkeypatch.setattr(rendering, "render_page", lambda records, last: "x" * (MOST_PAGE_BYTES + 1))
    assert make_page(kept(record)) == (
        None,
        "it would be too large; `fno-telemetry view DIR --html FILE` writes it",
    )


# --- what is kept of a long run


@pytest.mark.parametrize("broken", [(1230,), range(10, 5_010, 10)], ids=["once", "always"])
def test_of_a_long_run_few_are_kept_at_equal_distances_and_where_something_broke(examples, broken):
    one = deep(400)
    error = replace(examples.add_findings(one).findings[0], id="it:dead", severity="error", follows_from=None)
    series = KeptSeries()
    for step in range(0, 5_010, 10):
        findings = (error,) if step in broken else ()
        series.add(replace(examples.at_step(one, step), findings=findings))
    steps = steps_of(series)
    # Of more than 200 layers the overview has 200.
    most = MOST_ENTRIES // 200
    assert FEWEST_RECORDS / 2 <= len(steps) <= most
    assert steps == sorted(steps)
    assert {0, 5000} <= set(steps)
    assert broken[0] in steps
    distances = {each for each in range(10, 5_010, 10) if {*range(0, 5_000, each)} <= set(steps)}
    assert distances
    assert len(set(steps) - {*range(0, 5_000, min(distances))} - {5000}) <= most // 4
    assert len({tuple(module.place for module in each.modules) for each in series.records}) == 1
    # All of the last one, of the others the numbers that are shown.
    assert series.last.modules[0].histogram is not None
    kept_of_layers = {
        value
        for each in series.records
        for module in each.modules
        for value in (module.histogram, module.log_histogram, module.spectrum, module.sketch)
    }
    assert kept_of_layers == {None}


# --- TensorBoard


def test_nothing_is_drawn_before_a_run_ends(tmp_path, record, examples, monkeypatch):
    drawn = []
    monkeypatch.setattr(one_run, "draw", lambda series: (drawn.append(steps_of(series)), ([], None))[1])
    sink = TensorBoard(log_dir=tmp_path)
    sink.open(RunContext(tmp_path))
    for step in (10, 20, 30):
        sink.write(examples.at_step(record, step))
        sink.flush()
        assert drawn == []
    sink.close(ok=True)
    assert drawn == [[10, 20, 30]]


def test_a_callers_writer_has_pictures_on_request_alone(tmp_path, record, read_events):
    for name, pictures in (("default", None), ("asked", True)):
        with SummaryWriter(str(tmp_path / name)) as writer:
            write_records(TensorBoard(writer, pictures=pictures), RunContext(tmp_path), record)
        tags = [tag for tag in read_events(tmp_path / name) if tag.startswith("pictures/")]
        assert tags == (["pictures/01_depth", "pictures/02_spectrum"] if pictures else [])


def test_a_callers_writer_that_is_closed_stays_closed(tmp_path, record):
    writer = SummaryWriter(str(tmp_path / "run"))
    sink = TensorBoard(writer, pictures=True)
    sink.open(RunContext(tmp_path))
    sink.write(record)
    writer.close()
    sink.close(ok=True)
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_a_run_that_failed_is_not_drawn(tmp_path, record, read_events):
    write_records(TensorBoard(log_dir=tmp_path / "run"), RunContext(tmp_path), record, ok=False)
    found = read_events(tmp_path / "run")
    assert "rms/lifter" in found
    assert not [tag for tag in found if tag.startswith("pictures/")]


def test_pictures_can_be_left_out(tmp_path, alone, record, read_events):
    write_records(TensorBoard(log_dir=tmp_path / "run", pictures=False), RunContext(tmp_path), record)
    found = read_events(tmp_path / "run")
    assert not [tag for tag in found if tag.startswith("pictures/")]
    [(_, overview)] = found["0_overview/text_summary"]
    assert "#images" not in overview.string_val[0].decode()
    write_records(WandbRun(mode="offline", pictures=False), RunContext(alone), record)
    [run] = (alone / "wandb").glob("offline-run-*")
    assert not (run / "files" / "media" / "images").exists()


# --- W&B


def test_wandb_has_pictures_and_the_page_in_one_row_and_none_in_the_summary(alone, record, examples):
    import wandb

    records = [record, examples.at_step(record, 2000)]
    write_records(WandbRun(mode="offline"), RunContext(alone, experiment="demo"), *records)
    wandb.teardown()
    [run] = (alone / "wandb").glob("offline-run-*")
    media = log.read_media(run)
    assert list(media) == [2000]
    assert sorted(media[2000]) == [*OF_THE_EXAMPLE, "pictures/page"]
    page = media[2000].pop("pictures/page").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "2 records, step 1000 to step 2000" in page
    assert Page(page).loads() == []
    # The last record's numbers are all there, and over the steps no layer is known in it alone.
    assert "the gelu of fno_blocks.0" in page
    assert "Hatched" not in page.partition('id="steps"')[2].partition('id="profile"')[0]
    [picture] = draw(kept(records[1]))[0][:1]
    with Image.open(media[2000][picture.key]) as image:
        assert np.array_equal(np.asarray(image), picture.pixels)
    assert {file.suffix for file in media[2000].values()} == {".png"}
    assert log.read_metrics(run)["pictures/*"] == ("checkpoint_step", True)
    assert not [key for key in log.read_summary(run) if key.startswith("pictures")]


def test_without_matplotlib_everything_else_is_there_and_a_line_says_so(run_program):
    done = run_program(
        """
import sys
KeptSeries.add = draws_pictures
for name in [name for name in sys.modules if name.partition(".")[0] in ("matplotlib", "jinja2")]:
    del sys.modules[name]
sys.modules["matplotlib"] = None
capture("out", ft.TensorBoard(), record, others=[WandbRun(mode="offline")])
print(ft.TensorBoard().read_back(Path("out"))[1000] is not None)
"""
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "{'json': 'ok', 'tensorboard': 'ok', 'wandb': 'ok'}"
    assert [line for line in lines if "lacks" in line] == [
        "TensorBoard lacks pictures of this run: Pictures need matplotlib: "
        "pip install 'fno-telemetry[plots]'.",
        "W&B lacks the pictures and the page of this run: A page needs jinja2 and matplotlib: pip install "
        "'fno-telemetry[html]'.",
    ]
    assert lines[-1] == "True"


def test_a_wrong_choice_is_refused():
    with pytest.raises(OptionError):
        from fno_telemetry.sinks import make_sink

        make_sink("tensorboard", {"pictures": "yes"})
