"""What dashboards get of networks of 4, 20 and 60 layers, in TensorBoard's files and W&B's logs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fno_telemetry import keys
from fno_telemetry.quantities import QUANTITIES
from fno_telemetry.records import (
    AccuracyRecord,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    Histogram,
    LogHistogram,
)
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.dashboard_pictures import NAMES
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.overview import Detail, select_overview
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.wandb.rows import row
from fno_telemetry.sinks.wandb.sink import WandbRun
from support import wandb_log as log
from support import wandb_surroundings
from support.sink_runs import write_records

alone = wandb_surroundings.alone

OF_A_BLOCK = [name for name, each in QUANTITIES.items() if each.group == "branches"]
OF_THE_OUTPUT = [name for name, each in QUANTITIES.items() if each.group == "accuracy"]
OF_BANDS = [name for name, each in QUANTITIES.items() if each.group == "bands"]
OF_NO_TENSOR = (*OF_A_BLOCK, "spectral_local_gradient_ratio", "moved", *OF_THE_OUTPUT, *OF_BANDS)
OF_A_LAYER = [name for name in QUANTITIES if name not in OF_NO_TENSOR]
OF_A_SIDE = [n for n in OF_A_LAYER if QUANTITIES[n].group not in ("weights", "gradients", "training")]
STEPS = (10, 20, 30)


def network(record: CaptureRecord, layers: int) -> CaptureRecord:
    """An FNO of so many layers in a step of its training, each entry as large as can be."""
    random = np.random.default_rng(0)
    edges = tuple(np.cumsum(random.random(65)).tolist())

    def counts() -> tuple[int, ...]:
        return tuple(random.integers(1, 100_000, 64).tolist())

    def numbers(names: list[str]) -> FrozenMapping[float]:
        # As many digits as a float has, but for what is counted.
        found = dict(zip(names, random.random(len(names)).tolist(), strict=True))
        whole = {name: 10**16 + index for index, name in enumerate(names) if name.endswith("count")}
        return FrozenMapping(found | whole)

    def measured(entry, names=OF_A_LAYER, **changes):
        histogram = Histogram(edges, counts(), 1, 1)
        decades = LogHistogram(tuple(-8 + index / 4 for index in range(65)), counts(), 0, 0, 0)
        return replace(entry, stats=numbers(names), histogram=histogram, log_histogram=decades, **changes)

    roles = {"lifting": "lifting", "lifting.fcs.0": "other", "lifting#gelu": "activation"}
    for index in range(layers):
        block = f"fno_blocks.{index}"
        roles |= {f"{block}.convs": "spectral", f"{block}.fno_skips": "local", f"{block}#gelu": "activation"}
        roles |= {f"{block}.channel_mlp.fcs.{i}": "other" for i in range(2)}
        roles |= {f"{block}.norm": "norm", block: "block"}
    roles |= {"projection.fcs.0": "other", "projection#gelu": "activation", "projection": "projection"}
    first = record.modules[0]
    modules = [
        measured(first, name=name, role=role, order=order) for order, (name, role) in enumerate(roles.items())
    ]
    blocks = [
        BlockRecord(
            name=f"fno_blocks.{index}",
            call=0,
            spectral=(f"fno_blocks.{index}.convs",),
            local=(f"fno_blocks.{index}.fno_skips",),
            stats=numbers([*OF_A_BLOCK, "spectral_local_gradient_ratio"]),
        )
        for index in range(layers)
    ]
    return replace(
        record,
        summary=FrozenMapping({**record.summary, "loss": 0.5}),
        modules=tuple(modules),
        blocks=tuple(blocks),
        input=measured(record.input, OF_A_SIDE),
        output=measured(record.output, OF_A_SIDE),
        outputs=(measured(record.output, OF_A_SIDE),),
        target=measured(record.target, OF_A_SIDE),
        accuracy=AccuracyRecord(stats=numbers(OF_THE_OUTPUT)),
    )


MOST_TAGS = {4: 200, 20: 900, 60: 2_500}
"""docs/dashboards.md: of all kinds together, texts included."""


def most_bytes(layers: int) -> int:
    """docs/dashboards.md: for each step, in each of the two."""
    return 10_000 * (layers + 2)


def write_tensorboard(folder: Path, records: list[CaptureRecord], detail: Detail) -> Path:
    write_records(TensorBoard(log_dir=folder, detail=detail), RunContext(folder), *records)
    [file] = folder.glob("events.*")
    return file


@pytest.mark.parametrize("layers", MOST_TAGS)
def test_tensorboard_gets_few_tags_charts_and_bytes(tmp_path, record, examples, read_events, layers):
    from tensorboard.plugins.custom_scalar import layout_pb2

    found = network(examples.add_findings(record), layers)
    file = write_tensorboard(tmp_path, [examples.at_step(found, step) for step in STEPS], "overview")
    assert file.stat().st_size <= len(STEPS) * most_bytes(layers)
    events = read_events(tmp_path)
    layout = layout_pb2.Layout.FromString(events.pop("custom_scalars__config__")[0][1].string_val[0])
    # Pictures are drawn once, at the end, and are as many at most whatever the depth and the steps.
    assert len(events) + len(NAMES) <= MOST_TAGS[layers]
    assert len(NAMES) == 11
    # No step adds tags of its own, or a page would grow with the training.
    assert {len(points) for points in events.values()} == {len(STEPS)}
    [category] = layout.category
    assert len(category.chart) <= 30
    per_place = [key.partition("/")[2] for key, _ in keys.numbers(select_overview(found))]
    assert max(map(per_place.count, set(per_place))) <= 12
    # Every curve of a layer is a line of a chart.
    lines = sum(len(chart.multiline.tag) for chart in category.chart)
    assert lines == len(per_place) + len(["captured_loss", "findings/error", "findings/warning"])


def test_wandb_gets_few_keys_and_bytes(alone, record, examples):
    import wandb

    found = {layers: network(examples.add_findings(record), layers) for layers in MOST_TAGS}
    for layers, each in found.items():
        assert len(row(each).scalars) + len(row(each).histograms) <= MOST_TAGS[layers]
        records = [examples.at_step(each, step) for step in STEPS]
        write_records(WandbRun(mode="offline"), RunContext(alone / str(layers), experiment="demo"), *records)
    wandb.teardown()
    for layers in found:
        [run] = (alone / str(layers) / "wandb").iterdir()
        [file] = run.glob("*.wandb")
        assert file.stat().st_size <= len(STEPS) * most_bytes(layers)
        numbers = {key for key in log.read_rows(run)[0] if "/" in key and "." not in key}
        expected = {key for key, _ in keys.numbers(select_overview(found[layers]))}
        assert numbers == expected | {"findings/error", "findings/warning", "findings/note"}
        shown = [key for key in log.read_summary(run) if "/" in key and "table" not in key]
        accuracy = [f"{name}/accuracy" for name in sorted(OF_THE_OUTPUT) if QUANTITIES[name].in_overview]
        expected = ["findings/error", "findings/note", "findings/warning", *accuracy]
        assert sorted(shown) == sorted(expected)


def test_the_report_and_full_detail_have_every_number(tmp_path, record, examples):
    everything = network(record, 20)
    JsonFile(tmp_path / "report.json").write(everything)
    expected = dict(keys.numbers(everything))
    assert len(expected) > 6_000
    assert JsonFile().read_back(tmp_path) == {1000: expected}
    write_tensorboard(tmp_path / "full", [everything], "full")
    [found] = TensorBoard(log_dir=tmp_path / "full").read_back(tmp_path).values()
    assert found.keys() == expected.keys() | {"captured_loss"}
    made = row(everything, "full")
    assert expected.keys() <= made.scalars.keys()
    assert made.left_out == ()


def test_full_detail_stays_within_its_bounds(tmp_path, record, examples, read_events):
    from tensorboard.plugins.custom_scalar import layout_pb2

    records = [examples.at_step(examples.large(record), step) for step in (1, 2)]
    file = write_tensorboard(tmp_path, records, "full")
    # docs/dashboards.md: at most 45 tags and 8 kB for each layer and step, and as much for ten layers beside.
    assert file.stat().st_size <= len(records) * 8_000 * (200 + 10)
    events = read_events(tmp_path)
    layout = layout_pb2.Layout.FromString(events.pop("custom_scalars__config__")[0][1].string_val[0])
    assert len(events) <= 45 * (200 + 10)
    assert {len(points) for points in events.values()} == {len(records)}
    assert [len(category.chart) for category in layout.category] == [30, 30]
