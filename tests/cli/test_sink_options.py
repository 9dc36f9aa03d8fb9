"""`--sink-option NAME.KEY=VALUE`: options of a chosen sink, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

SINK = """
import json

class Table:
    name = "table"

    def __init__(self, delimiter=",", digits=3, *, header=True):
        self.options = {"delimiter": delimiter, "digits": digits, "header": header}

    def open(self, run):
        self.folder = run.folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, record):
        (self.folder / "options.json").write_text(json.dumps(self.options))

    def flush(self): pass

    def close(self, ok): return []
"""


@pytest.fixture
def table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a sink that takes options, and writes them."""
    info = folder / "site" / "table_sink-1.dist-info"
    info.mkdir(parents=True)
    (folder / "site" / "table_sink.py").write_text(SINK)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: table-sink\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fno_telemetry.sinks]\ntable = table_sink:Table\n")
    monkeypatch.syspath_prepend(folder / "site")
    monkeypatch.delitem(sys.modules, "table_sink", raising=False)


LINE = ("capture", "--model", "cli_networks:Plain", "--input", "train.npz", "--output", "out")


def written() -> dict[str, object]:
    return json.loads(Path("out/options.json").read_text())


def test_options_reach_the_sink_as_toml_values(run, table):
    options = ("--sink-option", "table.delimiter=';'", "--sink-option", "table.digits=5")
    assert run(*LINE, "--sink", "table", *options, "--sink-option", "table.header=false").code == 0
    assert written() == {"delimiter": ";", "digits": 5, "header": False}


def test_a_bare_word_is_a_text(run, table):
    assert run(*LINE, "--sink", "table", "--sink-option", "table.delimiter=space").code == 0
    assert written()["delimiter"] == "space"


def test_a_config_file_has_a_table_for_each_sink_and_the_command_line_adds_to_it(run, table):
    Path("c.toml").write_text('sink = "table"\n[sink-option.table]\ndelimiter = "|"\ndigits = 7\n')
    assert run(*LINE, "--config", "c.toml", "--sink-option", "table.digits=1").code == 0
    assert written() == {"delimiter": "|", "digits": 1, "header": True}


def test_a_built_in_sink_takes_its_options(run, folder):
    line = (*LINE, "--sink", "tensorboard", "--sink-option", "tensorboard.log_dir='elsewhere'")
    assert run(*line).code == 0
    assert list(Path("elsewhere").glob("events.out.tfevents.*"))


TABLE = ("--sink", "table")
WANDB = ("--sink", "wandb", "--wandb-project", "p")
BOARD = ("--sink", "tensorboard")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sink-option", "table.digits=5"), ("table.digits=5", "not chosen", "--sink table")),
        ((*TABLE, "--sink-option", "tensorboard.layout=false"), ("'tensorboard'", "not chosen")),
        ((*TABLE, "--sink-option", "table"), ("'table'", "NAME.KEY=VALUE")),
        ((*TABLE, "--sink-option", "table=5"), ("'table=5'", "NAME.KEY=VALUE")),
        ((*TABLE, "--sink-option", "table.digits"), ("--sink-option", "'table.digits'", "NAME.KEY=VALUE")),
        (
            (*TABLE, "--sink-option", "table.digits=[1"),
            ("--sink-option table.digits=[1", "TOML", "'table.digits=\"…\"'"),
        ),
        ((*TABLE, "--sink-option", "table.digit=5"), ("'table'", "'digit'", "delimiter, digits, header")),
        ((*TABLE, "--sink-option", "json.path='x'"), ("json.path", "cannot be given")),
        ((*WANDB, "--sink-option", "wandb.project=q"), ("--wandb-project", "wandb.project", "not both")),
        ((*WANDB, "--sink-option", "wandb.mode=never"), ("wandb.mode=never", "online, offline or disabled")),
        (
            (*TABLE, "--sink-option", "table.digits="),
            ("--sink-option table.digits=:", "'table.digits=\"…\"'"),
        ),
        (("--sink-option", "json.x="), ("--sink-option json.x=: the sink 'json' has no options",)),
        (("--sink-option", "json."), ("--sink-option 'json.':", "NAME.KEY=VALUE")),
        (("--sink-option", "json.="), ("--sink-option 'json.=':", "NAME.KEY=VALUE")),
        ((*BOARD, "--sink-option", "tensorboard.log_dir=t\nb"), ("--sink-option tensorboard.log_dir=t b:",)),
        (("--sink-option", ".x=1"), ("--sink-option '.x=1': NAME, the sink, is missing",)),
        ((*BOARD, "--sink-option", "tensorboard.bogus=1"), ("no option 'bogus'. Known: log_dir, layout",)),
        ((*BOARD, "--sink-option", "tensorboard.layot=1"), ("option 'layot'. Did you mean layout? Known",)),
        (
            (*BOARD, "--sink-option", "tensorbord.layout=1"),
            ("'tensorbord'. Did you mean tensorboard? Known",),
        ),
        (("--sink-option", "json.x=1"), ("'json' has no options for the command line",)),
        ((*BOARD, "--sink-option", "tensorboard.log_dir=5"), ("log_dir=5: expected a path for log_dir",)),
        ((*BOARD, "--sink-option", 'tensorboard.log_dir=""'), ('log_dir="": expected a path for log_dir',)),
        ((*BOARD, "--sink-option", "tensorboard.layout=5"), ("layout=5: expected true or false for layout",)),
        ((*WANDB, "--sink-option", 'wandb.alert="yes"'), ('wandb.alert="yes": expected true or false',)),
        ((*WANDB, "--sink-option", "wandb.commit=true"), ("wandb.commit", "cannot be given")),
        ((*BOARD, "--detail", "all"), ("--detail 'all': expected overview or full",)),
        (("--detail", "full"), ("--detail full is for dashboards; add --sink tensorboard, or wandb",)),
        ((*TABLE, "--detail", "full"), ("--detail full is for dashboards",)),
        (
            (*BOARD, "--detail", "full", "--sink-option", "tensorboard.detail=full"),
            ("give --detail or --sink-option tensorboard.detail, not both",),
        ),
        (
            (*WANDB, "--detail", "full", "--sink-option", "wandb.detail=overview"),
            ("give --detail or --sink-option wandb.detail, not both",),
        ),
        ((*BOARD, "--sink-option", "tensorboard.detail=all"), ("detail=all: expected overview or full",)),
        (
            (*TABLE, "--sink-option", "table.digits=5", "--sink-option", "table.digits=6"),
            ("--sink-option table.digits=6: table.digits is given twice",),
        ),
    ],
)
def test_what_cannot_be_used_is_one_line_and_nothing_is_written(run, table, options, words):
    result = run(*LINE, *options)
    assert (result.code, result.out) == (2, "")
    [line] = result.err.splitlines()
    assert [word for word in words if word not in line] == []
    assert not Path("out").exists()


def test_compare_passes_options_on_and_refuses_them_without_a_sink(run, captured, table):
    line = ("compare", captured, captured)
    result = run(*line, "--sink-option", "table.digits=5")
    assert result.code == 2
    assert "--sink-option table.digits=5" in result.err
    options = ("--sink", "table", "--output", "boards", "--sink-option", "table.digits=5")
    assert run(*line, *options, "--fail-on", "never").code == 0
    assert json.loads(Path("boards/options.json").read_text())["digits"] == 5
