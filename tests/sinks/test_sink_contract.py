"""What every sink promises, whichever it is: every plug-in, and the built-in ones on what a caller owns."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fno_telemetry import plugins
from fno_telemetry.sinks.history_file import HistoryFile
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.testing.sinks import CHECKS, check_records, check_sink
from support import callers_sinks, wandb_surroundings

alone = wandb_surroundings.alone

PLACES_OF_THEIR_OWN: dict[str, Callable[[Path], partial]] = {
    "JsonFile(path)": lambda folder: partial(JsonFile, folder / "mine" / "report.json"),
    "HistoryFile(path)": lambda folder: partial(HistoryFile, folder / "mine" / "history.jsonl"),
    "HistoryFile(path, rotate_mib=)": lambda folder: partial(
        HistoryFile, folder / "mine" / "history.jsonl", rotate_mib=0.03
    ),
    "TensorBoard(log_dir=)": lambda folder: partial(TensorBoard, log_dir=folder / "mine"),
    "TensorBoard(writer)": lambda folder: partial(callers_sinks.tensorboard, folder / "mine"),
}


CASES = [
    pytest.param(which, check, id=f"{which} {check.__name__}")
    for which in PLACES_OF_THEIR_OWN
    for check in CHECKS
    # One path has room for one report: a later record replaces an earlier one.
    if (which, check) != ("JsonFile(path)", check_records)
]


@pytest.mark.parametrize("name", plugins.names("sinks"))
def test_a_sink_keeps_its_contract(name: str, alone: Path) -> None:
    check_sink(plugins.load("sinks", name), alone, name)


@pytest.mark.parametrize(("which", "check"), CASES)
def test_a_sink_keeps_its_contract_in_a_place_of_its_own(which: str, check: Callable, tmp_path: Path) -> None:
    check(PLACES_OF_THEIR_OWN[which](tmp_path), tmp_path)
