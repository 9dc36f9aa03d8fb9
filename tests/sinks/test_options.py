"""A sink from its name and options, as the command makes it."""

import sys
from pathlib import Path

import pytest

from fno_telemetry.errors import MissingExtra, OptionError, PluginNotFound, SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.options import make_sink
from fno_telemetry.sinks.tensorboard.sink import TensorBoard

MODULE = """
from fno_telemetry.errors import MissingExtra
from fno_telemetry.testing.in_memory_sink import InMemorySink

class Csv(InMemorySink):
    name = "csv"

    def __init__(self, separator=",", /, folder=None, *, digits=6):
        super().__init__()
        self.given = (folder, digits)
        if digits == "many":
            raise ValueError("'many' is\\nno number")
        if digits == "none":
            raise SystemExit("no digits")
        if digits == "paid":
            raise MissingExtra("Buy the package.")

class Plain(InMemorySink):
    pass

def anything(**options):
    sink = InMemorySink()
    sink.given = options
    return sink

nothing = 7
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinks of another package: csv, plain, anything, and one that is no constructor."""
    info = tmp_path / "csv_sinks-1.dist-info"
    info.mkdir()
    (tmp_path / "csv_sinks.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: csv-sinks\nVersion: 1\n")
    entries = {"csv": "Csv", "plain": "Plain", "anything": "anything", "nothing": "nothing"}
    lines = [f"{name} = csv_sinks:{attribute}" for name, attribute in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[fno_telemetry.sinks]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "csv_sinks", raising=False)


def test_without_options_a_sink_has_its_defaults(installed) -> None:
    assert isinstance(make_sink("json"), JsonFile)
    assert make_sink("csv", {}).given == (None, 6)


def test_options_are_keyword_arguments_of_the_constructor(installed, tmp_path, record, examples) -> None:
    assert make_sink("csv", {"folder": "x", "digits": 3}).given == ("x", 3)
    sink = make_sink("tensorboard", {"log_dir": tmp_path / "mine", "layout": False})
    assert isinstance(sink, TensorBoard)
    sink.open(RunContext(tmp_path))
    sink.write(record)
    sink.close(ok=True)
    assert list((tmp_path / "mine").glob("events.*"))


def test_a_sink_may_take_any_option(installed) -> None:
    assert make_sink("anything", {"x": 1}).given == {"x": 1}


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("csv", "digit", "The sink 'csv' has no option 'digit'. Known: folder, digits."),
        ("csv", "separator", "The sink 'csv' has no option 'separator'. Known: folder, digits."),
        ("plain", "digits", "The sink 'plain' has no option 'digits'. It has no options."),
        ("json", "name", "The sink 'json' has no option 'name'. Known: path."),
        ("tensorboard", "dir", "The sink 'tensorboard' has no option 'dir'. Known: writer, log_dir, layout."),
    ],
)
def test_an_unknown_option_is_refused_with_those_there_are(installed, name, option, message) -> None:
    with pytest.raises(OptionError) as caught:
        make_sink(name, {option: 1})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        (
            "csv",
            {"digits": "many"},
            SinkUnavailable,
            "'csv' cannot be made: ValueError: 'many' is no number;",
        ),
        ("csv", {"digits": "none"}, SinkUnavailable, "The sink 'csv' cannot be made: SystemExit: no digits;"),
        ("csv", {"digits": "paid"}, MissingExtra, "Buy the package."),
        ("nothing", {}, SinkUnavailable, "The sink 'nothing' cannot be made: TypeError: "),
        ("tensorboard", {"writer": "runs"}, OptionError, "`writer` is a str: a SummaryWriter was expected"),
        ("wandb", {"mode": "on"}, OptionError, "`mode` 'on': expected online, offline or disabled"),
        ("parquet", {}, PluginNotFound, "No sink is called 'parquet'. Known: json, tensorboard, wandb"),
    ],
)
def test_a_sink_that_cannot_be_made_is_refused_in_one_line(installed, name, options, error, words) -> None:
    with pytest.raises(error) as caught:
        make_sink(name, options)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
