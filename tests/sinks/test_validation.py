"""A training and its validation write records of the same step into one dashboard."""

from dataclasses import replace
from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord, FrozenMapping, freeze_mapping
from fno_telemetry.sinks.wandb.rows import row
from support.sink_runs import write_records


@pytest.fixture
def validation(record: CaptureRecord, examples) -> CaptureRecord:
    """At the step of `record`, with other numbers, a loss and findings."""
    found = examples.add_findings(examples.with_stats(record, "lifter", rms=7.0))
    return replace(
        found,
        summary=FrozenMapping({**record.summary, "loss": 0.5}),
        training=freeze_mapping({"stage": "val"}),
    )


def test_one_folder_of_reports_has_both(tmp_path: Path, record, validation):
    write_records(ft.JsonFile(), ft.RunContext(tmp_path, series=True), record, validation)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "activation_report.step1000.json",
        "activation_report.step1000.val.json",
    ]
    [numbers] = ft.JsonFile().read_back(tmp_path).values()
    assert numbers == {**dict(keys.numbers(record)), **dict(keys.numbers(validation))}


def test_a_writer_of_the_caller_takes_both_and_neither_twice(tmp_path: Path, record, validation, read_events):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    sink = ft.TensorBoard(writer, detail="full")
    for each in (record, validation):
        sink.write(each)
    for each in (record, validation):
        with pytest.raises(ft.OptionError, match="a record at step 1000 was already written"):
            sink.write(each)
    writer.close()
    events = read_events(tmp_path)
    assert {len(points) for tag, points in events.items() if "__" not in tag} == {1}
    assert (events["rms/lifter"][0][1], events["val/rms/lifter"][0][1]) != (7.0, 7.0)
    for tag in ("rms/lifter", "histogram/lifter", "moved/lifter/weight", "relative_l2/accuracy"):
        assert {tag, f"val/{tag}"} <= events.keys()
    for tag in ("captured_loss", "findings/error", "findings/text_summary"):
        assert f"val/{tag}" in events
        assert tag not in events
    assert {"val/report/text_summary", "val/0_overview/text_summary"} <= events.keys()


def test_a_run_of_reports_that_is_written_again_keeps_both(tmp_path: Path, record, validation, examples):
    context = ft.RunContext(tmp_path, experiment="demo", series=True)
    for written in (record, validation, examples.at_step(record, 500)):
        each = replace(written, provenance=freeze_mapping({"experiment": "demo"}))
        fan = ft.FanOut([ft.JsonFile(), ft.TensorBoard(detail="full")], required="json")
        fan.open(context)
        fan.write(each)
        assert fan.close(ok=True).status == {"json": "ok", "tensorboard": "ok"}
    found = ft.TensorBoard().read_back(tmp_path)
    assert list(found) == [500, 1000]
    assert {"rms/lifter", "val/rms/lifter"} <= found[1000].keys()
    assert found[1000]["val/rms/lifter"] == 7.0


@pytest.mark.parametrize("detail", ["overview", "full"])
def test_a_row_of_a_validation_has_the_step_and_no_key_of_a_training(validation, detail):
    made = row(validation, detail)
    plain = {key for key in (*made.scalars, *made.histograms) if not key.startswith("val/")}
    assert plain == set()
    assert made.scalars["val/checkpoint_step"] == 1000
    assert made.scalars["val/captured_loss"] == 0.5
    assert made.scalars["val/findings/error"] == 1
    assert "val/output_rms" in made.scalars
    assert "val/histogram/lifter" in made.histograms
    assert ("val/moved/lifter/weight" in made.scalars) == (detail == "full")
    assert made.scalars["val/relative_l2/accuracy"] == 0.125
