from pathlib import Path

import pytest

from fno_telemetry import report
from fno_telemetry.errors import MissingExtra, OptionError, ReportError, SinkUnavailable, TelemetryError
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.fan_out import FanOut, Outcome
from fno_telemetry.sinks.json_file import JsonFile
from fno_telemetry.testing.in_memory_sink import InMemorySink


class Listed:
    """A sink that lists its calls, in a list shared by all, and raises where it is told to."""

    def __init__(self, calls: list[str], name: str, **raises: BaseException) -> None:
        self.name, self._calls, self._raises = name, calls, raises

    def _called(self, what: str) -> None:
        self._calls.append(f"{self.name} {what}")
        error = self._raises.get(what.split()[0])
        if error is not None:
            raise error

    def open(self, run) -> None:
        self._called("open")

    def write(self, record) -> None:
        self._called("write")

    def flush(self) -> None:
        self._called("flush")

    def close(self, ok: bool) -> list[str]:
        self._called(f"close {ok}")
        return [f"look at {self.name}"]


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: Path) -> RunContext:
    return RunContext(tmp_path)


def test_every_sink_gets_every_call_and_the_required_one_is_always_first(calls, run, record):
    sinks = FanOut([Listed(calls, "a"), Listed(calls, "json"), Listed(calls, "b")], required="json")
    sinks.open(run)
    sinks.write(record)
    sinks.flush()
    outcome = sinks.close(ok=True)
    expected = [
        f"{sink} {what}" for what in ("open", "write", "flush", "close True") for sink in ("json", "a", "b")
    ]
    assert expected == calls
    expected = Outcome({"json": "ok", "a": "ok", "b": "ok"}, ["look at json", "look at a", "look at b"])
    assert expected == outcome


def test_the_required_sink_can_have_a_record_before_the_others(calls, run, record):
    sinks = FanOut([Listed(calls, "a"), Listed(calls, "json")], required="json")
    sinks.open(run)
    calls.clear()
    sinks.keep(record)
    assert calls == ["json write"]
    sinks.write(record)
    assert calls == ["json write", "json write", "a write"]


def test_every_sink_gets_the_same_record(run, record):
    first, second = InMemorySink(), InMemorySink()
    sinks = FanOut([first, second])
    sinks.open(run)
    sinks.write(record)
    assert first.records[0] is second.records[0] is record
    assert first.run is second.run is run
    lines = ["InMemorySink.records: 1"] * 2
    assert sinks.close(ok=True) == Outcome({"in_memory": "ok", "in_memory-2": "ok"}, lines)


def test_any_sink_can_be_the_required_one(calls, run, record):
    sinks = FanOut([JsonFile(), Listed(calls, "a", write=OSError("full"))], required="a")
    sinks.open(run)
    with pytest.raises(ReportError, match="the a sink is required, and it failed: OSError: full"):
        sinks.write(record)
    assert sinks.close(ok=False).status == {"a": "OSError: full", "json": "ok"}
    assert list(run.folder.iterdir()) == []


def test_without_a_required_sink_the_order_stays_and_a_failing_report_is_only_named(calls, run, record):
    sinks = FanOut([Listed(calls, "a"), Listed(calls, "json", write=OSError("full"))])
    sinks.open(run)
    sinks.write(record)
    assert calls[:2] == ["a open", "json open"]
    assert sinks.close(ok=True).status == {"a": "ok", "json": "OSError: full"}


@pytest.mark.parametrize(
    ("names", "listed"), [(["a", "b", "a"], "the names are a, b, a-2"), ([], "the names are none")]
)
def test_a_required_sink_that_is_not_there_is_refused(calls, names, listed):
    with pytest.raises(OptionError, match=f"`required` 'json': no sink has this name; {listed}$"):
        FanOut([Listed(calls, name) for name in names], required="json")


def test_two_sinks_of_one_kind_are_told_apart(calls, run):
    sinks = FanOut([Listed(calls, "tensorboard"), Listed(calls, "tensorboard", close=OSError("gone"))])
    sinks.open(run)
    assert sinks.close(ok=True).status == {"tensorboard": "ok", "tensorboard-2": "OSError: gone"}


@pytest.mark.parametrize("error", [SinkUnavailable("No project."), MissingExtra("Install it.")])
def test_a_sink_that_cannot_be_had_is_raised_before_anything_is_written(calls, run, error):
    sinks = FanOut([JsonFile(), Listed(calls, "a"), Listed(calls, "b", open=error), Listed(calls, "c")])
    with pytest.raises(type(error)) as raised:
        sinks.open(run)
    assert raised.value is error
    assert calls == ["a open", "b open", "b close False", "a close False"]
    assert list(run.folder.iterdir()) == []


@pytest.mark.parametrize("method", ["open", "write", "flush"])
def test_a_sink_that_fails_is_named_closed_and_dropped_and_the_others_go_on(calls, run, record, method):
    bad = Listed(calls, "bad", **{method: OSError("disk\nfull")})
    sinks = FanOut([bad, Listed(calls, "good")])
    sinks.open(run)
    for _ in range(2):
        sinks.write(record)
        sinks.flush()
    outcome = sinks.close(ok=True)
    assert outcome.status == {"bad": "OSError: disk full", "good": "ok"}
    heard = [call for call in calls if call.startswith("bad")]
    assert heard[-2:] == [f"bad {method}", "bad close False"]
    good = [call for call in calls if call.startswith("good")]
    assert good == ["good open", *["good write", "good flush"] * 2, "good close True"]


def test_a_sink_that_fails_to_close_is_named(calls, run):
    sinks = FanOut([Listed(calls, "bad", close=ValueError("no")), Listed(calls, "good")])
    sinks.open(run)
    outcome = sinks.close(ok=True)
    assert Outcome({"bad": "ValueError: no", "good": "ok"}, ["look at good"]) == outcome


def test_a_sink_that_fails_twice_keeps_its_first_reason(calls, run, record):
    sinks = FanOut([Listed(calls, "bad", write=OSError("first"), close=OSError("second"))])
    sinks.open(run)
    sinks.write(record)
    assert sinks.close(ok=True).status == {"bad": "OSError: first"}


def test_an_error_raised_on_purpose_is_its_own_reason(calls, run, record):
    sinks = FanOut([Listed(calls, "bad", write=SinkUnavailable("The disk is full: make room."))])
    sinks.open(run)
    sinks.write(record)
    assert sinks.close(ok=True).status == {"bad": "The disk is full: make room."}


def test_a_reason_is_one_line_of_bounded_length(calls, run, record):
    sinks = FanOut([Listed(calls, "bad", write=OSError("very\n" * 1000))])
    sinks.open(run)
    sinks.write(record)
    reason = sinks.close(ok=True).status["bad"]
    assert len(reason) <= 300
    assert "\n" not in reason


@pytest.mark.parametrize("method", ["open", "write", "flush", "close"])
def test_a_sink_that_exits_the_program_only_fails_itself(calls, run, record, method):
    sinks = FanOut([Listed(calls, "bad", **{method: SystemExit(1)}), Listed(calls, "good")])
    sinks.open(run)
    sinks.write(record)
    sinks.flush()
    assert sinks.close(ok=True).status == {"bad": "SystemExit: 1", "good": "ok"}


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_strict_raises_after_all_others_had_their_turn(calls, run, record, method):
    error = OSError("full")
    sinks = FanOut([Listed(calls, "bad", **{method: error}), Listed(calls, "good")], strict=True)
    sinks.open(run)
    with pytest.raises(OSError, match="full") as raised:
        sinks.write(record)
        sinks.flush()
        sinks.close(ok=True)
    assert raised.value is error
    good = "close True" if method == "close" else method
    assert calls[-1] == f"good {good}"
    assert sinks.close(ok=False).status == {"bad": "OSError: full", "good": "ok"}


def test_strict_raises_when_a_sink_fails_to_open_and_closes_the_others(calls, run):
    sinks = FanOut([Listed(calls, "good"), Listed(calls, "bad", open=OSError("full"))], strict=True)
    with pytest.raises(OSError, match="full"):
        sinks.open(run)
    assert calls == ["good open", "bad open", "bad close False", "good close False"]


def test_strict_turns_an_exit_into_an_error(calls, run, record):
    sinks = FanOut([Listed(calls, "bad", write=SystemExit(3))], strict=True)
    sinks.open(run)
    with pytest.raises(TelemetryError, match="The bad sink tried to end the program: 3"):
        sinks.write(record)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("error", [OSError("full"), ReportError("out.json: full"), SystemExit(1)])
def test_a_required_sink_that_fails_is_an_error_before_others_have_the_record(
    calls, run, record, error, strict
):
    sinks = FanOut([Listed(calls, "a"), Listed(calls, "json", write=error)], required="json", strict=strict)
    sinks.open(run)
    with pytest.raises(ReportError):
        sinks.write(record)
    assert "a write" not in calls
    outcome = sinks.close(ok=False)
    assert calls[-1] == "a close False"
    assert outcome.status["json"] != "ok"
    assert outcome.status["a"] == "ok"


@pytest.mark.parametrize("method", ["open", "flush", "close"])
def test_a_required_sink_that_fails_is_an_error_wherever_it_fails(calls, run, record, method):
    sinks = FanOut([Listed(calls, "json", **{method: OSError("full")}), Listed(calls, "a")], required="json")
    with pytest.raises(ReportError, match="the json sink is required, and it failed: OSError: full"):
        sinks.open(run)
        sinks.flush()
        sinks.close(ok=True)
    sinks.close(ok=False)
    assert calls.count("a open") == sum(call.startswith("a close") for call in calls)


@pytest.mark.parametrize("method", ["open", "write", "flush", "close"])
def test_an_interrupt_passes_through_once_every_sink_is_closed_as_failed(calls, run, record, method):
    interrupted = Listed(calls, "b", **{method: KeyboardInterrupt()})
    sinks = FanOut([Listed(calls, "a"), interrupted, Listed(calls, "c")])
    with pytest.raises(KeyboardInterrupt):
        sinks.open(run)
        sinks.write(record)
        sinks.flush()
        sinks.close(ok=True)
    opened = {call.split()[0] for call in calls if call.endswith("open")}
    closed = [call.split()[0] for call in calls if " close " in call]
    assert sorted(opened) == sorted(closed)
    # Where closing was what was interrupted, those before it were closed well already.
    after = calls[calls.index("b close True" if method == "close" else f"b {method}") + 1 :]
    assert all(call.endswith("False") for call in after if " close " in call)
    sinks.close(ok=False)
    assert closed == [call.split()[0] for call in calls if " close " in call]


def test_closing_again_says_the_same_and_closes_nothing(calls, run):
    sinks = FanOut([Listed(calls, "a")])
    sinks.open(run)
    first = sinks.close(ok=True)
    assert first == sinks.close(ok=False)
    assert calls == ["a open", "a close True"]


def test_writing_before_opening_is_refused(calls, record):
    sinks = FanOut([Listed(calls, "a")])
    with pytest.raises(SinkUnavailable, match="open"):
        sinks.write(record)
    assert sinks.close(ok=False).status == {"a": "not opened"}


def test_a_fan_out_can_be_opened_again(calls, run, record):
    sinks = FanOut([Listed(calls, "a", write=OSError("full"))])
    for _ in range(2):
        sinks.open(run)
        sinks.write(record)
        assert sinks.close(ok=True).status == {"a": "OSError: full"}


def test_the_report_stands_when_another_sink_fails(calls, run, record):
    sinks = FanOut([Listed(calls, "bad", write=OSError("full")), JsonFile()], required="json")
    sinks.open(run)
    sinks.write(record)
    assert sinks.close(ok=True).status == {"json": "ok", "bad": "OSError: full"}
    assert record == report.load_report(run.folder / "activation_report.json")
