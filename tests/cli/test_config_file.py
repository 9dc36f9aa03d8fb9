"""`--config`: the options of `capture` from a file."""

from pathlib import Path

import pytest

import fno_telemetry as ft

CONFIG = """
input = "train.npz"
output = "out"
sink = ["json", "tensorboard"]
layers = "lifter*"
max-samples = 2
batch_size = 2
force = true
[set]
hidden_channels = 4
modes = 3
input_transform = "sqrt"
"""


@pytest.fixture
def config(folder: Path) -> str:
    Path("c.toml").write_text(CONFIG)
    return "c.toml"


def test_a_file_gives_any_option(run, config):
    assert run("capture", "--config", config).code == 0
    assert run("capture", "--config", config).code == 0
    record = ft.load_report("out/activation_report.json")
    assert (record.summary["n_samples"], record.summary["batch_size"]) == (2, 2)
    assert {module.name.partition(".")[0] for module in record.modules} == {"lifter"}
    arguments = record.provenance["arguments"]
    assert (arguments["modes"], arguments["input_transform"]) == (3, "sqrt")
    assert Path("out/tensorboard").is_dir()


def test_the_command_line_wins_and_settings_are_merged(run, config):
    line = ("--config", config, "--output", "other", "--max-samples", 1, "--sink", "json", "--set", "modes=2")
    assert run("capture", *line).code == 0
    record = ft.load_report("other/activation_report.json")
    assert record.summary["n_samples"] == 1
    arguments = record.provenance["arguments"]
    assert (arguments["hidden_channels"], arguments["modes"]) == (4, 2)
    assert [path.name for path in Path("other").iterdir() if path.is_dir()] == []
    assert not Path("out").exists()


def test_what_the_command_line_excludes_is_not_taken_from_the_file(run, config):
    Path("c.toml").write_text('input = "train.npz"\nbatch_size = 2\narchitecture = "hybrid"\n')
    line = ("--batches", "cli_networks:tensors", "--model", "cli_networks:Plain", "--output", "out")
    assert run("capture", "--config", config, *line).code == 0
    assert ft.load_report("out/activation_report.json").summary["architecture"] == "Plain"


def test_two_that_exclude_each_other_in_the_file_are_refused(run, config):
    Path("c.toml").write_text('input = "train.npz"\nbatches = "a:b"\noutput = "out"')
    result = run("capture", "--config", config)
    assert result.code == 2
    assert "--batches" in result.err


def test_json_asked_for_in_the_file_holds_for_errors_too(run, config):
    Path("c.toml").write_text('input = "nowhere.npz"\noutput = "out"\njson = true')
    result = run("capture", "--config", config)
    assert result.code == 2
    assert "nowhere.npz" in result.document["error"]


def test_every_kind_of_setting_arrives_as_it_was_written(run, config):
    Path("c.toml").write_text(
        'input = "train.npz"\noutput = "out"\nmodel = "kinds:make"\n'
        '[set]\na = "quote \\" and \\\\ and ü"\nb = [1, 2.5, true]\nc = { d = "e", "f g" = [] }\nh = inf\n'
    )
    Path("kinds.py").write_text(
        "from cli_networks import Plain\n"
        "def make(a, b, c, h):\n"
        "    assert a == 'quote \" and \\\\ and ü', a\n"
        "    assert b == [1, 2.5, True] and c == {'d': 'e', 'f g': []} and h == float('inf')\n"
        "    return Plain()\n"
    )
    result = run("capture", "--config", config)
    assert result.code == 0, result.err
