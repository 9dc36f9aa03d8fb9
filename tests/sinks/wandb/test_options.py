"""What is refused at once, in one line, and what is not imported before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from fno_telemetry.errors import MissingExtra, OptionError, SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.wandb.sink import WandbRun


class LooksLikeARun:
    """Enough to be taken for one before anything is written."""

    log = define_metric = log_artifact = None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"project": "team/project"}, "`project` 'team/project': .* found '/'"),
        ({"project": ""}, "`project` '': a name without blanks"),
        ({"project": "p" * 129}, "`project` has 129 characters: at most 128"),
        ({"project": "a\nb"}, "`project` 'a b|`project` 'a"),
        ({"entity": " lab"}, "`entity` ' lab': a name without blanks"),
        ({"entity": "lab?"}, r"`entity` 'lab\?': .* found '\?'"),
        ({"group": 7}, "`group` 7: a name"),
        ({"mode": "on"}, "`mode` 'on': expected online, offline or disabled"),
        ({"layout": "one"}, "`layout` 'one': expected experiment or per-checkpoint"),
        ({"init_timeout": 0}, "`init_timeout` 0: a number of seconds above 0"),
        ({"finish_timeout": float("nan")}, "`finish_timeout` nan: a number of seconds above 0"),
        ({"commit": True}, r"`commit` is for WandbRun\(run\)"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(options, expected):
    with pytest.raises(OptionError, match=expected) as caught:
        WandbRun(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"project": "p"}, {"entity": "e"}, {"mode": "offline"}, {"layout": "per-checkpoint"}, {"group": "g"}],
)
def test_a_run_and_options_for_another_are_refused(options):
    with pytest.raises(OptionError, match="not both"):
        WandbRun(LooksLikeARun(), **options)


def test_a_mode_that_the_environment_gets_wrong_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "of-line")
    with pytest.raises(
        SinkUnavailable, match="WANDB_MODE='of-line': expected one of online, offline, disabled"
    ):
        WandbRun().open(RunContext(tmp_path))


def test_without_wandb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    sink = WandbRun()
    with pytest.raises(MissingExtra) as caught:
        sink.open(RunContext(tmp_path))
    assert str(caught.value) == "The wandb sink needs wandb: pip install 'fno-telemetry[wandb]'."
    assert sink.close(ok=False) == []


def test_the_folder_of_earlier_runs_is_not_taken_for_the_package(tmp_path):
    (tmp_path / "wandb").mkdir()
    program = f"""
import sys
import lazy_loader  # which the package needs, and which lies among the site-packages
sys.path = [{str(tmp_path)!r}, *[path for path in sys.path if "site-packages" not in path], {str(ROOT)!r}]
from fno_telemetry.sinks.wandb.starting import require_wandb
import wandb
assert wandb.__file__ is None
try:
    require_wandb()
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "MissingExtra\n"


def test_a_wandb_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SinkUnavailable, match="cannot be imported: No module named 'something_it_needs'"):
        WandbRun().open(RunContext(tmp_path))


def test_importing_the_sink_loads_neither_wandb_nor_torch():
    program = (
        "import sys, fno_telemetry.sinks.wandb.sink, fno_telemetry.sinks.wandb.feed; "
        "print([name for name in ('torch', 'tensorboard', 'wandb', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


ROOT = Path(__file__).parents[3]
