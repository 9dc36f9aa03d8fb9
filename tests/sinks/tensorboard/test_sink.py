import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from fno_telemetry import keys
from fno_telemetry.errors import MissingExtra, OptionError, SinkUnavailable
from fno_telemetry.records import FrozenMapping
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.tensorboard.markdown import escape, findings_list, table
from fno_telemetry.sinks.tensorboard.run_folders import SUFFIX, folder_name
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.tensorboard.summaries import BANDS_TITLE, LAYERS_TITLE, Charts
from support.sink_runs import write_records


def capture(run: RunContext, *records, ok: bool = True, **options) -> list[str]:
    return write_records(TensorBoard(**options), run, *records, ok=ok)


@pytest.fixture
def events(run, folder, record, read_events):
    """All numbers of the record, in TensorBoard's own files."""
    capture(run, record, detail="full")
    return read_events(folder)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what is written


def test_every_defined_number_is_a_curve_at_the_records_step(events, record):
    named = [(keys.record_place(entry), entry.stats) for entry in (*record.modules, *record.blocks)]
    named += [("input", record.input.stats), ("output", record.output.stats), ("target", record.target.stats)]
    named += [(f"output[{output.item}]", output.stats) for output in record.outputs]
    expected = {
        f"{statistic}/{place}": [(1000, np.float32(value))]
        for place, stats in named
        for statistic, value in stats.items()
        if value is not None
    }
    groups = {tag.partition("/")[0] for tag in expected}
    assert expected == {tag: points for tag, points in events.items() if tag.partition("/")[0] in groups}


def test_an_undefined_number_has_no_curve(events):
    assert "rms/dead" in events
    assert "tail_ratio/dead" not in events
    assert "spectral_local_ratio/spec_encoder#0" not in events


def test_a_number_that_is_not_finite_has_no_curve(run, folder, record, examples, read_events):
    capture(run, examples.with_stats(record, "lifter", rms=float("nan"), abs_p99=float("inf")))
    events = read_events(folder)
    assert "abs_p50/lifter" in events
    assert not {"rms/lifter", "abs_p99/lifter"} & set(events)


def test_a_record_without_a_step_stands_at_step_0(run, folder, record, examples, read_events):
    capture(run, examples.at_step(record, None))
    assert {step for points in read_events(folder).values() for step, _ in points} == {0}


def test_a_record_without_a_step_is_read_back_as_such_next_to_one_of_step_0(run, record, examples):
    without = examples.at_step(examples.with_stats(record, "lifter", rms=0.5), None)
    capture(run, without, examples.at_step(record, 0))
    found = TensorBoard().read_back(run.folder)
    assert set(found) == {None, 0}
    assert found[None]["rms/lifter"] == 0.5
    assert found[0]["rms/lifter"] == pytest.approx(record.module("lifter").stats["rms"], rel=1e-6)


def test_curves_of_the_caller_do_not_hide_a_record(tmp_path, record):
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss", 1.0, 7)
        sink = TensorBoard(writer, detail="full")
        sink.write(record)
        writer.add_scalar("loss", 0.5, 1000)
        sink.close(ok=True)
        found = sink.read_back(tmp_path / "nowhere")
    assert found[7] == {"loss": 1.0}
    assert found[1000]["loss"] == 0.5
    assert dict(keys.numbers(record)).keys() < found[1000].keys()


def test_a_point_of_a_callers_writer_is_not_written_twice(tmp_path, record, examples, read_events):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoard(writer)
        sink.write(examples.at_step(record, None))
        with pytest.raises(
            OptionError, match=r"at step 0 was already written, where a record without a step"
        ):
            sink.write(examples.at_step(record, None))
        sink.write(record)
        sink.close(ok=True)
        sink.open(RunContext(tmp_path))
        with pytest.raises(
            OptionError, match=r"^TensorBoard: a record at step 1000 .* another `step` for each"
        ):
            sink.write(record)
        with pytest.raises(
            OptionError, match="this record has no step, and the one before it was of step 1000"
        ):
            sink.write(examples.at_step(record, None))
        sink.write(examples.at_step(record, 500))
        assert [step for step, _ in read_events(tmp_path)["rms/lifter"]] == [0, 1000, 500]
        assert [step for step, _ in read_events(tmp_path)["report/text_summary"]] == [0, 1000, 500]
        # Another sink knows nothing of what this one wrote.
        TensorBoard(writer).write(record)


@pytest.mark.parametrize("kind", ["histogram", "log_histogram"])
def test_a_histogram_has_the_reports_bins_without_the_empty_ones_outside(events, record, kind):
    for module in record.modules:
        report = getattr(module, kind)
        tag = f"{kind}/{keys.record_place(module)}"
        if not sum(report.counts):
            assert tag not in events
            continue
        [(step, histogram)] = events[tag]
        filled = np.flatnonzero(report.counts)
        first, end = filled[0], filled[-1] + 1
        assert step == 1000
        assert list(report.edges[first : end + 1]) == [histogram.min, *histogram.bucket_limit]
        assert histogram.max == histogram.bucket_limit[-1]
        assert list(report.counts[first:end]) == list(histogram.bucket)
        assert histogram.num == sum(report.counts)


def test_the_sums_of_a_histogram_are_those_of_all_finite_elements(events, record):
    stats = record.module("lifter").stats
    finite = stats["count"] - stats["nan_count"] - stats["inf_count"]
    [(_, histogram)] = events["histogram/lifter"]
    assert histogram.sum == pytest.approx(stats["mean"] * finite)
    assert histogram.sum_squares == pytest.approx(stats["rms"] ** 2 * finite)


def test_a_layer_of_zeros_has_no_histogram_over_decades(events):
    assert "histogram/dead" in events
    assert "log_histogram/dead" not in events


# --- the Custom Scalars tab


def lay_out(*records, detail="overview"):
    charts = Charts(detail)
    for record in records:
        charts.add(record)
    return charts.layout


def lines(layout, statistic):
    """The places whose curves are lines of this chart, in order."""
    kind, patterns = layout[LAYERS_TITLE][statistic]
    assert kind == "Multiline"
    return [
        pattern.removeprefix(f"^{statistic}/").removesuffix("$").replace("\\", "") for pattern in patterns
    ]


def test_the_low_frequencies_and_the_branch_share_are_the_first_charts(record, examples):
    assert list(lay_out(record)[LAYERS_TITLE]) == [
        "low_frequency_fraction",
        "spectral_share",
        "update_ratio",
        "relative_l2",
        "gain",
        "rms",
        "abs_p50",
        "abs_p99",
        "sample_variation",
        "dead_channel_fraction",
        "grad_norm",
        "update_to_weight",
    ]
    more = replace(examples.add_findings(record), summary=FrozenMapping({**record.summary, "loss": 0.5}))
    shown = list(lay_out(more)[LAYERS_TITLE])
    assert shown[:5] == [
        *list(lay_out(record)[LAYERS_TITLE])[:2],
        "findings",
        "captured_loss",
        "update_ratio",
    ]


def test_a_chart_has_a_line_for_every_layer_in_order_of_depth(record):
    layout = lay_out(record)
    places = ["lifter", "fno_blocks/0/spectral", "fno_blocks/0/local_conv", "fno_blocks/0", "fno_blocks/1"]
    places += ["fno_blocks/10", "heads[0]", "heads[1]", "output@0"]
    assert lines(layout, "low_frequency_fraction") == ["input", *places, "output", "target"]
    assert lines(layout, "spectral_share") == ["fno_blocks/0", "fno_blocks/1", "fno_blocks/10"]
    assert lay_out(record, detail="overview").keys() == {LAYERS_TITLE}


def test_a_layer_that_comes_later_stands_at_its_depth_and_one_that_is_missing_stays(record, examples):
    without = examples.without(record, "fno_blocks.1")
    assert lines(lay_out(without, record), "rms") == lines(lay_out(record), "rms")
    assert set(lines(lay_out(record, without), "rms")) == set(lines(lay_out(record), "rms"))


def test_a_margin_chart_has_value_lower_and_upper(record):
    bands = lay_out(record, detail="full")[BANDS_TITLE]
    assert bands["heads[1]"] == ["Margin", ["p50/heads[1]", "p05/heads[1]", "p95/heads[1]"]]


def test_margin_charts_stand_in_reverse_since_the_page_turns_them_round(record):
    bands = lay_out(record, detail="full")[BANDS_TITLE]
    assert list(bands)[::-1] == lines(lay_out(record), "rms")


def test_each_line_of_a_chart_matches_its_own_curve_alone(record, events):
    _, patterns = lay_out(record, detail="full")[LAYERS_TITLE]["update_ratio"]
    matched = [[tag for tag in events if re.match(pattern, tag)] for pattern in patterns]
    places = ["fno_blocks/0", "fno_blocks/1", "fno_blocks/10", "spec_encoder#0"]
    assert [[f"update_ratio/{place}"] for place in places] == matched


def test_a_chart_of_very_many_lines_matches_all_curves_of_its_statistic(record, examples):
    # Their names would make an address that is too long for the server.
    layout = lay_out(examples.large(record, 301), detail="full")
    assert layout[LAYERS_TITLE]["rms"] == ["Multiline", ["^rms/"]]
    assert len(layout[LAYERS_TITLE]["low_frequency_fraction"][1]) == 1


def test_the_layout_is_written_once_for_the_same_names(run, folder, record, examples, read_events):
    capture(run, record, examples.at_step(record, 2000))
    assert len(read_events(folder)["custom_scalars__config__"]) == 1


def test_the_layout_is_written_whole_again_for_new_names(run, folder, record, examples, read_events):
    from tensorboard.plugins.custom_scalar import layout_pb2

    capture(run, examples.without(record, "lifter"), examples.without(record, "heads"))
    last = read_events(folder)["custom_scalars__config__"][-1][1]
    parsed = layout_pb2.Layout.FromString(last.string_val[0])
    [rms] = [chart for chart in parsed.category[0].chart if chart.title == "rms"]
    assert {"^rms/lifter$", r"^rms/heads\[1\]$"} <= set(rms.multiline.tag)


def test_the_layout_can_be_left_alone(run, folder, record, read_events):
    capture(run, record, layout=False)
    assert "custom_scalars__config__" not in read_events(folder)


# --- the table


def test_the_table_holds_layers_in_execution_order_blocks_warnings_and_a_summary(record):
    lines = table(record).splitlines()
    assert lines[0].startswith("step: 1000, architecture: CascadedFNOGenerator, weights: checkpoint")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    lifter = record.module("lifter").stats
    expected = ["lifter", "lifting", "4x2x8x8", *(f"{lifter[s]:.3g}" for s in ("rms", "abs_p50", "abs_p99"))]
    assert cells[2] == [*expected, "0.125", "0.9", "0"]
    names = [
        escape(m.name + (f"@{m.call}" if m.call else "") + (f"[{m.item}]" if m.item else ""))
        for m in record.modules
    ]
    assert names == [row[0] for row in cells[2 : 2 + len(names)]]
    blocks = cells[2 + len(names) :]
    assert blocks[0] == ["block", "spectral / local", "share", "update", "gain"]
    assert blocks[-1] == ["spec&#95;encoder&#35;0", "-", "-", "0.4", "1.4"]
    assert lines[-1] == "- warning: dead &#124; is &#60;zero&#62; everywhere"


@pytest.mark.parametrize(("detail", "names"), [("overview", ["lifter"]), ("full", ["lifter", "dead"])])
def test_a_very_long_table_has_the_layers_of_the_overview_alone(
    run, folder, record, examples, read_events, detail, names
):
    dead = record.module("dead")
    more = [replace(dead, name=f"dead.{index}", order=100 + index) for index in range(60)]
    capture(run, replace(record, modules=(*record.modules, *more)), detail=detail)
    [(_, text)] = read_events(folder)["report/text_summary"]
    written = text.string_val[0].decode()
    assert [name for name in ("lifter", "dead") if f"| {name} |" in written] == names


def test_layers_stand_in_the_order_in_which_they_ran_not_in_the_records(record):
    assert table(record) == table(replace(record, modules=record.modules[::-1]))


@pytest.mark.parametrize("text", ["a|b", "<b>", "_x_", "*x*", "`x`", "[x](y)", "&lt;", "\\", "!", "~", "#"])
def test_no_character_of_a_name_is_a_sign_of_markdown(text):
    assert not set("|<>_*`[]()\\!~") & set(escape(text))


def test_a_record_that_nobody_diagnosed_is_written_as_before(events):
    assert not [tag for tag in events if tag.startswith("findings")]


def test_the_list_of_findings_is_bounded_and_says_what_it_leaves_out(record, examples):
    cause = replace(examples.add_findings(record).findings[0], message="m" * 10_000)
    many = tuple(replace(cause, id=str(index), layer=f"layer {index}") for index in range(120))
    text = findings_list(replace(record, findings=many))
    assert text.count("dead&#95;layer&#41;") == 50
    assert "layer 49** " in text
    assert text.endswith("\n\n70 more are in the report.")
    assert len(text) < 50 * 1000


# --- whose writer, which folder


def test_a_callers_writer_is_flushed_and_stays_open(tmp_path: Path, record, read_events):
    with SummaryWriter(str(tmp_path)) as writer:
        sink = TensorBoard(writer)
        sink.write(record)
        lines = sink.close(ok=True)
        assert "rms/lifter" in read_events(tmp_path)
        writer.add_scalar("mine", 1.0, 5)
        # The same file: a closed SummaryWriter would have begun another.
        assert len(files(tmp_path)) == 1
    assert lines[0] == f"fno-telemetry view --tensorboard {tmp_path}"
    assert read_events(tmp_path)["mine"] == [(5, 1.0)]


def test_a_run_without_a_log_dir_has_a_folder_for_its_experiment(run, folder, record):
    capture(run, record)
    [name] = files(run.folder / "tensorboard" / "demo")
    assert re.fullmatch(r"events\.out\.tfevents\..*" + re.escape(SUFFIX), name)


def test_a_run_without_an_experiment_is_called_after_its_folder(tmp_path: Path, record):
    capture(RunContext(tmp_path / "out"), record)
    assert [path.name for path in (tmp_path / "out" / "tensorboard").iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["demo", "lr=1e-3_b4.v2", "Übung-1"])
def test_a_name_that_is_safe_is_the_folders(name):
    assert folder_name(name) == name


@pytest.mark.parametrize(
    "name", ["a/b", "a\\b", "../up", "..", ".", "", "a b", "a\nb", "-x", "x" * 300, "a\udcff"]
)
def test_a_name_that_is_not_safe_becomes_one(name):
    safe = folder_name(name)
    assert re.fullmatch(r"[\w+=@-][\w.+=@-]*", safe)
    assert len(safe) < 100


def test_names_that_had_to_change_keep_apart():
    assert len({folder_name(name) for name in ("a/b", "a b", "a-b", "a\\b", "a//b", "x" * 90, "x" * 91)}) == 7


def test_closing_says_how_to_look_in_words_that_a_shell_takes(tmp_path: Path, record):
    lines = capture(RunContext(tmp_path / "my run", experiment="demo"), record)
    where = f"'{tmp_path}/my run/tensorboard'"
    assert lines == [
        f"fno-telemetry view --tensorboard {where}",
        f"or: tensorboard --logdir {where}, then open http://localhost:6006/#text&_smoothingWeight=0",
    ]


def test_steps_that_go_back_are_told(run, record, examples):
    lines = capture(run, *(examples.at_step(record, step) for step in (1, 10, 5)))
    assert lines[-1] == "TensorBoard may hide points: step 5 came after 10; write ascending steps."


def test_a_writer_and_a_folder_are_not_both_taken(tmp_path: Path):
    with SummaryWriter(str(tmp_path)) as writer, pytest.raises(OptionError, match="not both"):
        TensorBoard(writer, log_dir=tmp_path)


def test_an_own_writer_needs_opening(tmp_path: Path, record):
    with pytest.raises(SinkUnavailable, match="open"):
        TensorBoard(log_dir=tmp_path).write(record)


def test_a_folder_that_cannot_be_made_is_refused_when_opening(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkUnavailable, match=f"{tmp_path}/file is not a folder"):
        TensorBoard(log_dir=tmp_path / "file" / "runs").open(RunContext(tmp_path))


def test_without_the_package_opening_says_what_to_install(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtra) as raised:
        TensorBoard().open(run)
    expected = "The tensorboard sink needs tensorboard: pip install 'fno-telemetry[tensorboard]'."
    assert expected == str(raised.value)
    assert files(run.folder) == []


def test_importing_the_sink_imports_neither_torch_nor_tensorboard():
    program = (
        "import sys\n"
        "from fno_telemetry.sinks import fan_out, json_file, tensorboard\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'tensorboard', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_disk_without_room_is_one_error_and_no_other_thread_prints(run, record):
    resource = pytest.importorskip("resource")
    sink = TensorBoard()
    sink.open(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        # Not caught here, an error of the thread that writes would fail the test.
        with pytest.raises(OSError, match="File too large"):
            sink.write(record)
        with pytest.raises(OSError, match="File too large"):
            sink.close(ok=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_whose_name_is_not_utf8_is_refused_before_the_capture(tmp_path):
    with pytest.raises(SinkUnavailable, match="its name is not UTF-8; choose another folder"):
        TensorBoard().open(RunContext(tmp_path / "out\udcff"))
