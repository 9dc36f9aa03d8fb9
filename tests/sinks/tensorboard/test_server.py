"""What a real TensorBoard, with the loader that it takes by default, shows of what the sink wrote."""

import html
import html.parser
import io
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fno_telemetry import keys, pictures, report
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.dashboard_pictures import DOTS_PER_INCH
from fno_telemetry.sinks.fan_out import FanOut
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.kept_series import KeptSeries
from fno_telemetry.sinks.overview import select_overview
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.tensorboard.summaries import BANDS_TITLE, LAYERS_TITLE
from support import tensorboard_serving

serving = tensorboard_serving.serving
LAST_STEPS = {"once": 2000, "full": 2000, "again": 7, "grown": 2000, "diagnosed": 3000, "callers": 1100}
LAST_STEPS |= {"pictured": 2000}

Get = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, record, examples, draws_pictures) -> Path:
    """A folder with one run for each thing that can happen, and the reports beside."""
    folder = tmp_path_factory.mktemp("captures")

    def capture(experiment: str, *records, **options) -> None:
        sinks = FanOut([TensorBoard(**options), JsonFile()], required="json")
        sinks.open(RunContext(folder, f"{experiment}.json", experiment))
        for each in records:
            sinks.write(each)
        assert set(sinks.close(ok=True).status.values()) == {"ok"}

    later = examples.at_step(examples.with_stats(record, "lifter", p05=-3.0, p50=0.5, p95=4.0), 2000)
    capture("once", record, later)
    capture("full", record, later, detail="full")
    capture("again", record, later)
    capture("again", examples.at_step(examples.without(record, "fno_blocks.1"), 7))
    capture("grown", examples.without(record, "lifter"), later)
    found, nothing = examples.add_findings(record), replace(examples.at_step(record, 3000), findings=())
    awkward = replace(found.findings[0], layer=examples.AWKWARD)
    found = replace(examples.at_step(found, 2000), findings=(awkward, *found.findings[1:]))
    capture("diagnosed", record, found, nothing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeptSeries, "add", draws_pictures)
        capture("pictured", record, later)
    with SummaryWriter(str(folder / "tensorboard" / "callers")) as writer:
        writer.add_scalar("loss/train", 0.5, 900)
        TensorBoard(writer).write(record)
        writer.add_scalar("loss/train", 0.25, 1100)
    return folder


@pytest.fixture(scope="module")
def get(folder: Path) -> Iterator[Get]:
    """Ask the server for one of its JSON documents."""

    def are_shown(get: Get) -> bool:
        return all(_last_step(get, run) == step for run, step in LAST_STEPS.items())

    with serving(folder / "tensorboard", are_shown) as get:
        yield get


def _last_step(get: Get, run: str) -> int | None:
    """Return the step of what was written last in this run; None while the server knows the run alone."""
    if run == "callers":
        return get("plugin/scalars/scalars", run=run, tag="loss/train")[-1][1]
    texts = get("plugin/text/text", run=run, tag="report/text_summary")
    return texts[-1]["step"] if texts else None


@pytest.fixture(scope="module")
def saved(folder: Path):
    """The report of the run called once, which is of its last record."""
    return report.load_report(folder / "once.json")


def test_the_server_shows_one_run_for_each_experiment_and_nothing_else(get: Get):
    assert set(get("runs")) == set(LAST_STEPS)


def test_with_full_detail_curves_are_all_of_the_reports_numbers_in_float32(get: Get, saved):
    tags = get("plugin/scalars/tags")["full"]
    entries = [(keys.record_place(entry), entry) for entry in (*saved.modules, *saved.blocks)]
    entries += [("input", saved.input), ("output", saved.output), ("target", saved.target)]
    entries += [(keys.model_place("output", output.item), output) for output in saved.outputs]
    entries += [(keys.place(parameter.name), parameter) for parameter in saved.parameters]
    entries += [("accuracy", saved.accuracy)]
    bands, channels = saved.accuracy.bands, saved.accuracy.channels
    of_parts = {
        f"{name}/accuracy[band{index:02d}]": value
        for name in ("band_error", "spectrum_ratio", "band_coherence")
        for index, value in enumerate(getattr(bands, name))
    }
    of_parts |= {f"output_to_target_rms/accuracy[channel{i}]": value for i, value in enumerate(channels)}
    expected = {tag: value for tag, value in of_parts.items() if value is not None}
    expected |= {
        f"{statistic}/{place}": value
        for place, entry in entries
        for statistic, value in entry.stats.items()
        if value is not None
    }
    assert set(expected) == set(tags)
    for tag in [tag for tag in expected if tag.partition("/")[0] in ("rms", "count", "p05", "update_ratio")]:
        points = get("plugin/scalars/scalars", run="full", tag=tag)
        assert [step for _, step, _ in points] == [1000, 2000]
        assert points[-1][2] == np.float32(expected[tag])


def test_by_default_curves_are_those_of_the_layers_with_a_role(get: Get, saved):
    places = ["input", "lifter", "fno_blocks/0/spectral", "fno_blocks/0/local_conv", "fno_blocks/0", "output"]
    places += ["fno_blocks/1", "fno_blocks/10", "heads[0]", "heads[1]", "output@0", "target"]
    tensor = ("rms", "abs_p50", "abs_p99", "low_frequency_fraction", "sample_variation")
    expected = {f"{name}/{place}" for place in places for name in (*tensor, "dead_channel_fraction")}
    blocks = ("fno_blocks/0", "fno_blocks/1", "fno_blocks/10", "spec_encoder#0")
    expected |= {f"{name}/{block}" for block in blocks for name in ("update_ratio", "gain")}
    expected |= {f"spectral_share/{block}" for block in blocks[:-1]} | {"relative_l2/accuracy"}
    expected |= {"grad_norm/gate", "update_to_weight/gate"}
    assert set(get("plugin/scalars/tags")["once"]) == expected
    histograms = {f"{kind}/{place}" for place in places for kind in ("histogram", "log_histogram")}
    assert set(get("plugin/histograms/tags")["once"]) == histograms
    points = get("plugin/scalars/scalars", run="once", tag="low_frequency_fraction/output")
    assert [value for _, _, value in points] == [0.125, 0.125]


@pytest.mark.parametrize("kind", ["histogram", "log_histogram"])
def test_bins_and_counts_are_the_reports(get: Get, saved, kind):
    tags = get("plugin/histograms/tags")["full"]
    named = [(keys.record_place(module), module) for module in saved.modules]
    for place, entry in [("input", saved.input), ("output", saved.output), *named]:
        found, tag = getattr(entry, kind), f"{kind}/{place}"
        bins = [[*edges, count] for edges, count in zip(pairwise(found.edges), found.counts, strict=True)]
        filled = [index for index, count in enumerate(found.counts) if count]
        assert bool(filled) == (tag in tags)
        if filled:
            points = get("plugin/histograms/histograms", run="full", tag=tag)
            assert [step for _, step, _ in points] == [1000, 2000]
            assert bins[filled[0] : filled[-1] + 1] == points[-1][2]


def charts(get: Get, category: str) -> dict[str, Any]:
    """The charts of one category of the Custom Scalars tab, by title."""
    [found] = [each for each in get("plugin/custom_scalars/layout")["category"] if each["title"] == category]
    return {chart["title"]: chart for chart in found["chart"]}


def test_every_band_of_the_layout_holds_p50_between_p05_and_p95(get: Get, saved):
    bands = {title: chart["margin"]["series"] for title, chart in charts(get, BANDS_TITLE).items()}
    for place in ("input", "lifter", "fno_blocks/0/spectral", "heads[1]", "output@0", "output"):
        [series] = bands[place]
        curves = {
            role: [value for _, _, value in get("plugin/scalars/scalars", run="full", tag=series[role])]
            for role in ("lower", "value", "upper")
        }
        assert series["value"] == f"p50/{place}"
        assert len(curves["value"]) == 2
        ordered = zip(curves["lower"], curves["value"], curves["upper"], strict=True)
        assert all(lower < value < upper for lower, value, upper in ordered)


def test_each_chart_has_the_lines_of_all_layers_in_order_of_depth(get: Get):
    found = charts(get, LAYERS_TITLE)
    # Of all runs together: no run adds a chart of a layer.
    assert {"low_frequency_fraction", "spectral_share", "findings", "rms", "p05"} <= set(found)
    patterns = found["update_ratio"]["multiline"]["tag"]
    answers = [get("plugin/custom_scalars/scalars", run="once", tag=pattern) for pattern in patterns]
    places = ["fno_blocks/0", "fno_blocks/1", "fno_blocks/10", "spec_encoder#0"]
    assert all(answer["regex_valid"] for answer in answers)
    assert [[f"update_ratio/{place}"] for place in places] == [list(a["tag_to_events"]) for a in answers]


def test_a_layer_that_appeared_later_is_in_the_layout(get: Get, folder: Path, read_events):
    # The server merges the layouts of all runs, so only the file tells what this run's own is.
    assert len(read_events(folder / "tensorboard" / "grown")["custom_scalars__config__"]) == 2
    [point] = get("plugin/scalars/scalars", run="grown", tag="rms/lifter")
    assert point[1] == 2000


def test_a_run_captured_again_shows_only_the_new_points(get: Get):
    points = get("plugin/scalars/scalars", run="again", tag="rms/lifter")
    assert [step for _, step, _ in points] == [7]
    assert "rms/fno_blocks/1" not in get("plugin/scalars/tags")["again"]
    assert "histogram/fno_blocks/1" not in get("plugin/histograms/tags")["again"]
    texts = get("plugin/text/text", run="again", tag="report/text_summary")
    assert [text["step"] for text in texts] == [7]


def test_a_callers_run_holds_their_curves_and_ours(get: Get):
    losses = get("plugin/scalars/scalars", run="callers", tag="loss/train")
    assert [(step, value) for _, step, value in losses] == [(900, 0.5), (1100, 0.25)]
    assert [step for _, step, _ in get("plugin/scalars/scalars", run="callers", tag="rms/lifter")] == [1000]


class _Cells(html.parser.HTMLParser):
    """The text of table cells and list items, and the names of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag in ("td", "th", "li"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_table_shows_every_name_as_it_is(get: Get, saved, examples):
    [*_, text] = get("plugin/text/text", run="once", tag="report/text_summary")
    assert text["step"] == 2000
    page = _Cells(text["text"])
    cells = [cell.strip() for cell in page.cells]
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li"}
    assert examples.AWKWARD in cells
    assert {"fno_blocks.0#gelu", "shared@1", "heads[1]", "spec_encoder#0"} <= set(cells)
    assert f"warning: {saved.warnings[0]}" in cells
    start = cells.index("lifter")
    assert cells[start + 1 : start + 3] == ["lifting", "4x2x8x8"]


def test_findings_are_counted_at_the_steps_that_were_diagnosed_and_nowhere_else(get: Get):
    counted = {
        severity: [
            (step, value)
            for _, step, value in get("plugin/scalars/scalars", run="diagnosed", tag=f"findings/{severity}")
        ]
        for severity in ("error", "warning", "note")
    }
    assert counted == {
        "error": [(2000, 1.0), (3000, 0.0)],
        "warning": [(2000, 0.0), (3000, 0.0)],
        "note": [(2000, 1.0), (3000, 0.0)],
    }
    for kind in ("scalars", "text"):
        assert not [tag for tag in get(f"plugin/{kind}/tags")["once"] if tag.startswith("findings")]


def test_findings_are_a_list_of_causes_that_shows_every_character_as_it_is(get: Get, examples):
    texts = get("plugin/text/text", run="diagnosed", tag="findings/text_summary")
    assert [text["step"] for text in texts] == [2000, 3000]
    page = _Cells(texts[0]["text"])
    assert page.tags <= {"table", "tbody", "tr", "td", "ul", "li", "strong", "p"}
    # The page shows a text in a cell of its own.
    lines = [" ".join(cell.split()) for cell in page.cells][1:]
    assert lines == [
        f"error: {examples.AWKWARD} dead_layer | <b> of `dead` (dead_layer)",
        "rms = 0, count = 3, where = x",
        "Look at it.",
        "1 more layer follows from this: heads[0]",
        "note: the model unused_modes | <b> of `None` (unused_modes)",
        "rms = 0, count = 3, where = x",
        "Look at it.",
    ]
    assert "nothing found" in texts[1]["text"]


def test_the_overview_says_what_is_wrong_and_links_to_charts_and_histograms(get: Get, examples):
    assert "0_overview/text_summary" in get("plugin/text/tags")["diagnosed"]
    texts = get("plugin/text/text", run="diagnosed", tag="0_overview/text_summary")
    first, found, after = (text["text"] for text in texts)
    assert [text["step"] for text in texts] == [1000, 2000, 3000]
    assert "<strong>step 1000: not diagnosed.</strong>" in first
    assert "<strong>step 2000: 1 error, 1 note</strong>" in found
    assert "<strong>step 3000: nothing found</strong>" in after
    named = " ".join(_Cells(found).cells)
    assert f"error: {examples.AWKWARD} dead_layer | <b> of `dead` (dead_layer)" in named
    assert "Look at it." in named
    # The latest text is shown first, so it has the error of an earlier step too.
    assert "Before that: error at step 2000." in after
    assert f"error at step 2000: {examples.AWKWARD}" in " ".join(_Cells(after).cells)
    for text in (first, found, after):
        # As the page's own tabs are called, which it opens without loading anything again.
        assert '<a href="#custom_scalars&amp;_smoothingWeight=0">' in text
        assert '<a href="#histograms">' in text


def test_pictures_are_in_the_images_tab_at_the_last_step_as_they_are_drawn(get: Get, record, examples):
    tags = get("plugin/images/tags")
    assert [run for run in tags if tags[run]] == ["pictured"]
    names = ("depth", "spectrum", "curves", "low_frequency_fraction", "spectral_share", "update_ratio", "rms")
    names += ("sample_variation",)
    assert sorted(tags["pictured"]) == [f"pictures/{index:02d}_{name}" for index, name in enumerate(names, 1)]
    [found] = get("plugin/images/images", run="pictured", tag="pictures/01_depth", sample="0")
    assert found["step"] == 2000
    query = dict(urllib.parse.parse_qsl(found["query"]))
    shown = get("plugin/images/individualImage", as_bytes=True, **query)
    expected = pictures.depth_profile(select_overview(examples.at_step(record, 2000)))
    with Image.open(io.BytesIO(shown)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), expected.pixels(dots_per_inch=DOTS_PER_INCH))
    # The first text of the page leads there, and to the page that is a file.
    [*_, text] = get("plugin/text/text", run="pictured", tag="0_overview/text_summary")
    assert '<a href="#images">' in text["text"]


def test_the_overview_has_the_command_that_opens_the_page(get: Get, folder: Path):
    [*_, text] = get("plugin/text/text", run="once", tag="0_overview/text_summary")
    command = f"fno-telemetry view {folder} --html page.html"
    codes = re.findall(r"<code>(fno-telemetry view .*?)</code>", text["text"])
    assert html.unescape(codes[0]) == command
    # Before the long lists, so that it is seen without scrolling.
    assert text["text"].index("--html") < text["text"].index("lowest")
    [text] = get("plugin/text/text", run="callers", tag="0_overview/text_summary")
    assert "fno-telemetry view DIR --html page.html" in html.unescape(text["text"])
