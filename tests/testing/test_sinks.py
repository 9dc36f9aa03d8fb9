"""The tester of sinks finds each broken promise, and says which in one line."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fno_telemetry.errors import SinkUnavailable
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.testing.in_memory_sink import InMemorySink
from fno_telemetry.testing.sinks import CHECKS, check_kill, check_sink
from support import broken_sinks


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (broken_sinks.Unnamed, "`name` is None: a text was expected"),
        (broken_sinks.WithoutReadBack, "the blind sink has no method `read_back`"),
        (broken_sinks.NeedsOpening, "close raised SinkUnavailable: open it first"),
        (broken_sinks.LeavesAFile, "opening and closing alone leaves lock"),
        (
            broken_sinks.ShowsNothingToSee,
            "closed before it was opened, the sink says how to look at something",
        ),
        (broken_sinks.WritesAtTheEnd, "lost the record of step 1000 (flushed before the process was killed)"),
        (broken_sinks.DropsARecord, "lost the record of step 1000 (written): `read_back` does not find it"),
        (broken_sinks.DropsBlocks, "the json sink lost spectral_local_ratio/fno_blocks/0 of step 1000"),
        (broken_sinks.Rounds, "the json sink changed finite_fraction/input of step 1000 from 0.9961"),
        (broken_sinks.CallsNoStepZero, "lost the record without a step"),
        (broken_sinks.ReadsAList, "`read_back` returned a list: a mapping was expected"),
        (broken_sinks.ChangesTheRecord, "the json sink changed the record without a step itself"),
        (broken_sinks.AsksForATensor, "'ModuleRecord' object has no attribute 'tensor'"),
        (broken_sinks.TwoLines, "`close` returned ['look:\\nfno-telemetry compare"),
        (broken_sinks.SaysNothing, "`close` returned no line that says how to look at what was written"),
        (broken_sinks.ForgetsAFailedRun, "lost the record of step 1000 (written before the run failed)"),
        (broken_sinks.OpensOnce, "open raised SinkUnavailable: used up"),
        (broken_sinks.InventsAStep, "`read_back` of the json sink finds step 7, never written"),
        (broken_sinks.HoldsTheHalf, "its `detail` is 'half': one of overview, full was expected"),
        (
            broken_sinks.HoldsOnlyOverviews,
            "the constructor, given detail='full', raised TypeError",
        ),
        (broken_sinks.IgnoresTheDetail, "made with detail='full', the json sink says that its is 'overview'"),
        (
            broken_sinks.LosesWithFullDetail,
            "the json sink lost count/input of step 1000, which is 514 (written with detail='full')",
        ),
        (broken_sinks.LosesTheOverview, "the json sink lost low_frequency_fraction/input of step 1000"),
    ],
)
def test_a_broken_promise_is_named_in_one_line(sink, message, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        check_sink(sink, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sink_has_the_name_of_its_plug_in(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the sink is called 'json', and the plug-in 'parquet'"):
        check_sink(JsonFile, tmp_path, name="parquet")


def test_a_sink_that_cannot_be_made_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the constructor raised TypeError"):
        check_sink(partial(JsonFile, colour="red"), tmp_path)


def test_a_sink_that_another_process_cannot_make_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="give a class or function of a module"):
        check_kill(lambda: JsonFile(), tmp_path)


@pytest.mark.parametrize("check", [check for check in CHECKS if check is not check_kill])
def test_a_sink_in_memory_keeps_every_promise_but_surviving_a_kill(check, tmp_path: Path) -> None:
    check(InMemorySink, tmp_path)
    with pytest.raises(AssertionError, match="flushed before the process was killed"):
        check_kill(InMemorySink, tmp_path)


def test_a_sink_in_memory_keeps_the_records_themselves(tmp_path: Path, record, examples) -> None:
    sink = InMemorySink()
    with pytest.raises(SinkUnavailable, match=r"call open\(run\) first"):
        sink.write(record)
    run = RunContext(tmp_path)
    later = examples.at_step(record, 2000)
    for each in (record, later):
        sink.open(run)
        assert sink.run is run
        sink.write(each)
        sink.close(ok=True)
    assert sink.records == [record, later]
    assert sink.records[0] is record


def test_the_tester_and_what_it_needs_load_neither_torch_nor_dashboards() -> None:
    modules = ", ".join(
        f"fno_telemetry.testing.{name}" for name in ("sinks", "in_memory_sink", "example_record")
    )
    program = (
        f"import sys, {modules}; print([m for m in ('torch', 'tensorboard', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
