"""The table of layers: all layers of all records, with the numbers that people look at first."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from fno_telemetry.quantities import Quantity
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.layers_table import LayersTable
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support.sink_runs import write_records

COLUMNS = ("step", "layer", "role", "shape", "low_frequency_fraction", "spectral_share", "update_ratio")
COLUMNS += ("gain", "rms", "abs_p50", "abs_p99", "sample_variation", "dead_channel_fraction")
LAYERS = ["input", "lifter", "fno_blocks.0.spectral", "fno_blocks.0.local_conv", "fno_blocks.0"]
LAYERS += ["fno_blocks.1", "fno_blocks.10", "heads[0]", "heads[1]", "output", "spec_encoder#0", "output"]


def table_of(*records):
    table = LayersTable()
    for record in records:
        table.add(record)
    return table.take()


def test_each_layer_of_each_record_is_a_row_in_order_of_depth(record, examples):
    table = table_of(record, examples.at_step(record, 2000))
    assert table.columns == COLUMNS
    assert [row[1] for row in table.rows] == LAYERS * 2
    assert [row[0] for row in table.rows] == [1000] * len(LAYERS) + [2000] * len(LAYERS)
    rows = {(row[1], row[2]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    lifter = record.module("lifter")
    assert rows["lifter", "lifting"]["shape"] == "4x2x8x8"
    assert rows["lifter", "lifting"]["rms"] == lifter.stats["rms"]
    assert rows["lifter", "lifting"]["gain"] is None
    # A block's own numbers are in the row of its module, if that is recorded.
    assert (rows["fno_blocks.1", "block"]["gain"], rows["fno_blocks.1", "block"]["shape"]) == (1.2, "4x2x8x8")
    block = rows["spec_encoder#0", "block"]
    assert (block["gain"], block["shape"], block["rms"], block["spectral_share"]) == (1.4, None, None, None)
    assert {rows["output", "projection"]["rms"], rows["output", "output"]["rms"]} == {
        record.module("output").stats["rms"],
        record.output.stats["rms"],
    }


def test_a_number_of_another_package_has_a_column(record, examples):
    own = replace(record, quantities=(Quantity(name="peak", title="largest", rank=0),))
    table = table_of(*(examples.with_stats(own, "lifter", peak=peak) for peak in (float("nan"), 7.0)))
    assert table.columns[:7] == (*COLUMNS[:6], "peak")
    assert [row[6] for row in table.rows if row[1] == "lifter"] == [None, 7.0]


def test_the_latest_rows_are_kept(record, examples):
    table = table_of(*(examples.at_step(record, step) for step in range(900)))
    assert len(table.rows) == 10_000
    assert table.rows[-1][0] == 899


def test_the_table_is_logged_once_with_all_records(alone, record, examples):
    import wandb

    records = [examples.at_step(record, step) for step in (1000, 2000, None)]
    write_records(WandbRun(mode="offline"), RunContext(alone, experiment="demo"), *records)
    wandb.teardown()
    found = [log.read_tables(run)["layers/table"] for run in (alone / "wandb").iterdir()]
    assert {tuple(table["columns"]) for table in found} == {COLUMNS}
    assert sorted(len(table["data"]) for table in found) == [len(LAYERS), 2 * len(LAYERS)]


def test_of_a_redacted_capture_the_table_is_a_plain_file(server, alone: Path, record):
    write_records(WandbRun(), RunContext(alone, experiment="demo", redact=True), record)
    [run] = server.runs.values()
    header, *rows = csv.reader(io.StringIO(run.files["layers.csv"].decode(), newline=""))
    assert tuple(header) == COLUMNS
    assert [row[1] for row in rows] == LAYERS
    assert server.artifacts == []
