"""`view`: a report in the terminal, and as JSON."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

import fno_telemetry as ft
from fno_telemetry.records import FrozenMapping

WIDTHS = (40, 60, 80, 120, 200)


def widths(text: str) -> list[int]:
    return [len(line.rstrip()) for line in text.splitlines()]


def test_the_table_is_in_execution_order_with_the_reports_numbers(run, captured):
    text = run("view", "out/activation_report.json").out
    record = ft.load_report("out/activation_report.json")
    lines = text.splitlines()
    assert lines[0] == "fno: 1,682 parameters, untrained weights, seed 0; 3 samples in batches of 1"
    rows = [line.split() for line in lines]
    names = [module.name for module in record.modules]
    assert [row[0] for row in rows if row and row[0] in names][: len(names)] == names
    [row] = [row for row in rows if row and row[0] == "fno_blocks.1.spectral"]
    stats = record.module("fno_blocks.1.spectral").stats
    keys = (
        "rms",
        "abs_p50",
        "abs_p99",
        "low_frequency_fraction",
        "sample_variation",
        "dead_channel_fraction",
    )
    assert row[1:3] == ["spectral", "3×4×16×16"]
    assert [float(cell) for cell in row[3:]] == pytest.approx([stats[key] for key in keys], rel=0.01)
    blocks = [row for row in rows if row and row[0] in {block.name for block in record.blocks}][-4:]
    assert [float(row[1]) for row in blocks] == pytest.approx(
        [block.stats["spectral_local_ratio"] for block in record.blocks], rel=0.01
    )


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "line", [("view", "out"), ("plugins",), ("map", "--input", "train.npz")], ids=" ".join
)
def test_no_line_of_a_table_is_wider_than_the_terminal(run, captured, monkeypatch, line, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = run(*line)
    assert result.code == 0
    assert max(widths(result.out)) <= columns


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", ["encoder.stage.block." * 8 + "spectral", "数值网络" * 30])
def test_a_name_that_is_too_long_is_folded_and_every_number_kept(run, captured, monkeypatch, name, columns):
    path = Path("out/activation_report.json")
    path.write_text(path.read_text().replace("fno_blocks.0.act", name))
    monkeypatch.setenv("COLUMNS", str(columns))
    text = run("view", path).out
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= columns
    assert name in "".join(line.split(" ")[0] for line in text.splitlines())
    rms = ft.load_report(path).module(name).stats["rms"]
    assert f" {rms:.3g} " in text


@pytest.mark.parametrize(
    ("columns", "missing"),
    [
        (200, None),
        (120, None),
        (80, "abs_p50, abs_p99"),
        (60, "role, abs_p50, abs_p99, dead ch."),
    ],
)
def test_columns_that_give_way_are_named(run, captured, monkeypatch, columns, missing):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("view", "out").out.splitlines()
    found = [line for line in lines if line.startswith("no room at this width for: ")]
    assert found[:1] == ([] if missing is None else [f"no room at this width for: {missing}"])


@pytest.mark.parametrize(
    ("columns", "folded"),
    [
        (120, ["fno_blocks.fno_skips.0.conv"]),
        (80, ["fno_blocks.fno_skips.0", ".conv"]),
        (60, ["fno_blocks.fno_skips.0", ".conv"]),
    ],
)
def test_shape_and_rms_stay_and_a_long_name_is_folded_at_a_dot(run, captured, monkeypatch, columns, folded):
    path = Path("out/activation_report.json")
    name = "fno_blocks.fno_skips.0.conv"
    path.write_text(path.read_text().replace("fno_blocks.0.local_conv", name))
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [line.split() for line in run("view", path).out.splitlines()]
    at = next(index for index, row in enumerate(rows) if row[:1] == folded[:1])
    last = at + len(folded) - 1
    assert [row[0] for row in rows[at : last + 1]] == folded
    rms = ft.load_report(path).module(name).stats["rms"]
    assert {"3×4×16×16", f"{rms:.3g}"} <= {*rows[last]}


@pytest.mark.parametrize("columns", ["0", "1", "7", "many", ""])
def test_an_odd_width_is_no_trouble(run, captured, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert run("view", "out").code == 0


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colour_follows_the_environment(run, captured, monkeypatch, variable, coloured):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv(variable, "1")
    path = Path("out/activation_report.json")
    path.write_text(path.read_text().replace('"warnings": []', '"warnings": ["odd"]'))
    text = run("view", "out").out
    assert ("\x1b[33m" in text) == coloured
    assert "\x1b[3" not in text or coloured


def test_json_is_the_report_with_all_that_is_in_it(run, captured):
    path = Path("out/activation_report.json")
    document = json.loads(path.read_text()) | {"written_by_a_later_version": ["ü", None]}
    path.write_text(json.dumps(document))
    assert run("view", path, "--json").document == document
    assert run("view", "out", "--json").document == document


def test_a_folder_shows_every_report_in_it(run, captured, small):
    line = ("capture", "--input", "train.npz", "--output", "out", *small)
    assert run(*line, "--architecture", "fno_vanilla", "--output-json-name", "b.json").code == 0
    Path("out/notes.json").write_text('{"my": "own"}')
    result = run("view", "out")
    assert [line for line in result.out.splitlines() if line.startswith("out/")] == [
        "out/activation_report.json",
        "out/b.json",
    ]
    assert "fno: " in result.out
    assert "fno_vanilla: " in result.out
    assert result.err == ""  # other programs write JSON, too
    newer = Path("out/activation_report.json").read_text().replace('telemetry/1"', 'telemetry/99"', 1)
    Path("out/newer.json").write_text(newer)
    assert run("view", "out").err.startswith("left out: out/newer.json: ")
    Path("out/newer.json").unlink()
    refused = run("view", "out", "--json")
    assert refused.code == 2
    assert "b.json" in refused.document["error"]


def test_a_folder_of_captures_lists_their_reports_and_says_how_to_see_more(run, captured):
    for name in ("a", "b"):
        shutil.copytree("out", f"runs/{name}")
    Path("runs/other").mkdir()
    Path("runs/other/settings.json").write_text("{}")
    result = run("view", "runs")
    headline = "fno: 1,682 parameters, untrained weights, seed 0; 3 samples in batches of 1"
    assert result.out.splitlines() == [
        "runs/a/activation_report.json",
        headline,
        "runs/b/activation_report.json",
        headline,
    ]
    assert result.err.splitlines() == [
        "the tables of one: fno-telemetry view runs/a",
        "the runs compared with the first: fno-telemetry compare --group runs/a runs/b",
    ]
    assert run("compare", "--group", "runs/a", "runs/b").code == 0
    assert "name one of a/activation_report.json, b/" in run("view", "runs", "--json").document["error"]
    for command in ("compare", "diagnose"):
        refused = run(command, "runs")
        assert refused.code == 2
        assert "no report in this folder, but in the folders runs/a, runs/b in it; name one" in refused.err


def test_markup_and_smileys_in_names_are_shown_as_they_are(run, captured):
    path = Path("out/activation_report.json")
    path.write_text(path.read_text().replace("fno_blocks.0.act", "blocks[red]:bug:.0"))
    assert "blocks[red]:bug:.0" in run("view", "out").out


def test_what_a_reader_must_know_stands_below_the_tables(run, captured):
    path = Path("out/activation_report.json")
    document = json.loads(path.read_text())
    document["warnings"] = ["the input is odd"]
    document["not_fired"] = [{"name": "spare", "reason": "its forward was not called"}]
    document["skipped"] = [{"name": name, "reason": "its output holds no tensor"} for name in "abcde"]
    document["summary"]["weights"] = "checkpoint"
    document["summary"] |= {"checkpoint_step": 3, "step_kind": "epoch"}
    path.write_text(json.dumps(document))
    lines = run("view", "out/activation_report.json").out.splitlines()
    assert "weights from the checkpoint, epoch 3;" in lines[0]
    assert lines[-3:] == [
        "warning: the input is odd",
        "not fired: spare: its forward was not called",
        "skipped: a, b, c and 2 more: its output holds no tensor",
    ]


def test_a_record_of_a_training_shows_gradients_and_updates(run, folder, record, examples, monkeypatch):
    learned = examples.with_stats(record, "lifter", grad_norm=0.25, update_to_weight=0.0125)
    ft.JsonFile("training.json").write(learned)
    monkeypatch.setenv("COLUMNS", "120")
    result = run("view", "training.json")
    [row] = [line.split() for line in result.out.splitlines() if line.split()[:1] == ["lifter"]]
    assert row[-2:] == ["0.25", "0.0125"]


def test_all_inputs_and_the_target_have_a_row(run, folder, record):
    both = tuple(replace(record.input, item=item) for item in ("x", "grid"))
    ft.JsonFile("pairs.json").write(replace(record, inputs=both))
    rows = [line.split()[0] for line in run("view", "pairs.json").out.splitlines() if line[:1].isalpha()]
    assert {"input[x]", "input[grid]", "target"} < {*rows} and "input" not in rows
    ft.JsonFile("single.json").write(replace(record, inputs=(record.input,), target=None))
    rows = [line.split()[0] for line in run("view", "single.json").out.splitlines() if line[:1].isalpha()]
    assert "input" in rows and "target" not in rows


def test_channels_and_zero_samples_of_what_goes_in_and_comes_out_are_told(run, folder, record):
    many = tuple(float(size) for size in range(1, 65))
    stats = {"channel_rms_min": 1.0, "channel_rms_max": 64.0, "zero_sample_fraction": 0.25}
    inputs = (
        replace(record.input, channel_rms=(0.125, None, 32.0)),
        replace(record.input, item="x", channel_rms=many, stats=FrozenMapping(stats)),
    )
    shown = replace(record, input=inputs[0], inputs=inputs)
    ft.JsonFile("report.json").write(shown)
    lines = run("view", "report.json").out.splitlines()
    assert lines[3:5] == [
        "input: rms of the channels 0.125, –, 32",
        "input[x]: rms of 64 channels from 1 to 64; 25 % of the samples are zero everywhere",
    ]
    one = replace(record, input=replace(record.input, channel_rms=(1.0,)))
    ft.JsonFile("report.json").write(one)
    assert "channels" not in run("view", "report.json").out.partition("\n\n")[0]


def test_a_record_of_a_training_says_how_accurate_it_is_and_what_does_not_move(run, folder, record, examples):
    def lines(shown):
        ft.JsonFile("training.json").write(shown)
        return run("view", "training.json").out.splitlines()

    found = lines(record)
    assert found[1] == "training: learning rate 0.001, 2 forwards"
    assert (
        found[2] == "accuracy: relative L2 error 0.125, output over target rms undefined (the target is zero)"
    )
    assert [" ".join(line.split()) for line in (*found[4:6], *found[7:11])] == [
        "cycles per energy of relative output",
        "grid point the target error / target coherence",
        "mean 76.2 % 0.25 0.562 1",
        "0 to 1/4 19 % 0 1 1",
        "1/4 to 1/2 4.76 % 0.866 0.25 0.5",
        "1/2 to 0.75 0 % – – –",
    ]
    assert "not moved since the first record: lifter.bias" in found
    still = replace(record.parameters[1], stats=FrozenMapping({"moved": 0.0}))
    frozen = tuple(replace(still, name=f"norm.{index}.weight") for index in range(5))
    many = replace(record, parameters=(*record.parameters[:1], *frozen), accuracy=None)
    unmoved = "not moved since the first record: norm.0.weight, norm.1.weight, norm.2.weight and 2 more"
    assert unmoved in (found := lines(many))
    assert not any(line.startswith("accuracy:") for line in found)
    # Where nothing has moved yet, as in the first record, there is nothing to tell.
    assert not any("not moved" in line for line in lines(replace(many, parameters=frozen)))
