"""A sink from its name and options, as the command makes it."""

import re
import sys
from pathlib import Path

import pytest

import fno_telemetry as ft
from fno_telemetry.errors import MissingExtra, OptionError, PluginNotFound, SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.options import find_misfit, list_options, make_sink
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from support.sink_runs import write_records

MODULE = """
from pathlib import Path
from typing import Literal
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

class Typed(InMemorySink):
    def __init__(
        self,
        file: Path = Path("x"),
        count: "int | None" = None,
        share: float = 0.5,
        kind: Literal["a", "b"] | bool = "a",
        label: str = "",
        other: "Unknown | None" = None,
        pairs: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}

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
    entries = {"csv": "Csv", "plain": "Plain", "typed": "Typed", "anything": "anything", "nothing": "nothing"}
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
    ("option", "value", "made"),
    [
        ("file", "out.csv", Path("out.csv")),
        ("file", Path("out.csv"), Path("out.csv")),
        ("count", 3, 3),
        ("count", None, None),
        ("share", 2, 2),
        ("kind", "b", "b"),
        ("kind", True, True),
        ("label", "", ""),
        ("other", 5, 5),
        ("pairs", "left alone", "left alone"),
    ],
)
def test_a_value_that_fits_its_annotation_is_given_and_a_text_becomes_a_path(
    installed, option, value, made
) -> None:
    given = make_sink("typed", {option: value}).given[option]
    assert (type(given) is type(made) or isinstance(made, Path), given) == (True, made)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("file", 5, "a path"),
        ("file", "", "a path"),
        ("count", 2.5, "a whole number"),
        ("count", True, "a whole number"),
        ("share", "half", "a number"),
        ("share", False, "a number"),
        ("kind", "c", "a or b or true or false"),
        ("kind", 1, "a or b or true or false"),
        ("label", 5, "a text"),
    ],
)
def test_a_value_of_another_type_than_annotated_is_refused(installed, option, value, expected) -> None:
    with pytest.raises(OptionError) as caught:
        make_sink("typed", {option: value})
    assert str(caught.value) == f"`{option}` {value!r}: expected {expected}"


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("csv", "digit", "The sink 'csv' has no option 'digit'. Did you mean digits? Known: folder, digits."),
        ("csv", "separator", "The sink 'csv' has no option 'separator'. Known: folder, digits."),
        ("plain", "digits", "The sink 'plain' has no option 'digits'. It has no options."),
        ("json", "name", "The sink 'json' has no option 'name'. Known: path."),
        (
            "tensorboard",
            "dir",
            "The sink 'tensorboard' has no option 'dir'. "
            "Did you mean log_dir? Known: writer, log_dir, layout, detail, pictures.",
        ),
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
        ("wandb", {"detail": "all"}, OptionError, "`detail` 'all': expected overview or full"),
        ("tensorboard", {"detail": "all"}, OptionError, "`detail` 'all': expected overview or full"),
        (
            "parquet",
            {},
            PluginNotFound,
            "No sink is called 'parquet'. Known: json, history, tensorboard, wandb",
        ),
    ],
)
def test_a_sink_that_cannot_be_made_is_refused_in_one_line(installed, name, options, error, words) -> None:
    with pytest.raises(error) as caught:
        make_sink(name, options)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_can_be_listed_and_checked_before_a_sink_is_made(installed) -> None:
    assert list_options("csv") == ["folder", "digits"]
    assert list_options("anything") is None
    assert find_misfit("typed", "share", "half") == "a number"
    assert find_misfit("typed", "share", 0.25) is None
    assert find_misfit("csv", "digits", "without annotation") is None
    assert find_misfit("anything", "x", 1) is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: ft.TensorBoard("runs"),
            "`writer` is a str: a SummaryWriter was expected",
        ),
        (lambda: ft.TensorBoard(log_dir=3), "`log_dir` 3: a path was expected"),
        (lambda: ft.JsonFile(b"x"), "`path` b'x': a path was expected"),
        (lambda: ft.JsonFile(""), "`path` '': a path was expected"),
        (
            lambda: ft.WandbRun("mine"),
            "`run` is a str: what wandb.init returned was expected",
        ),
        (
            lambda: ft.WandbRun(init_timeout="soon"),
            "`init_timeout` 'soon': a number of seconds above 0",
        ),
        (lambda: ft.FanOut("json"), "`sinks` is a str: a list of sinks was expected"),
        (lambda: ft.FanOut(ft.JsonFile()), "`sinks` is a JsonFile: a list of sinks was expected"),
        (lambda: ft.FanOut(["json"]), "`sinks` holds a str: sinks were expected, such as ft.JsonFile()"),
    ],
)
def test_arguments_of_the_wrong_kind_are_told_what_was_expected(make, expected):
    with pytest.raises(OptionError, match=re.escape(expected)):
        make()


def test_the_folder_of_a_run_may_be_a_text(tmp_path, record):
    write_records(ft.JsonFile(), ft.RunContext(str(tmp_path)), record)
    assert ft.load_report(tmp_path / "activation_report.json") == record
