"""What a sink is: a place that finished records go to. Sinks get numbers, never tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fno_telemetry.records import CaptureRecord

PRECISION = 1e-6
"""Relative error that `Sink.read_back` may have: float32 is precise enough."""

NumbersByStep = Mapping[int | None, Mapping[str, int | float]]
"""Step -> key -> value. A record without a step is under None; keys are spelled by `fno_telemetry.keys`."""


@dataclass(frozen=True)
class RunContext:
    """What a sink is told about the run that it is opened for."""

    folder: Path
    report_name: str = "activation_report.json"
    experiment: str = ""
    redact: bool = False  # whether no path may leave this machine
    origin: str = ""  # what distinguishes this run from others of the same experiment name, if anything
    series: bool = False  # whether several checkpoints are captured, each into a report of its own

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a text is as good


class Sink(Protocol):
    """A place for records, opened for one run at a time.

    A package adds its own by the entry point `fno_telemetry.sinks`: a class, or a function, that makes a sink
    and can be called without arguments. The options of a sink are the keyword arguments of that call; on the
    command line they are `--sink-option NAME.KEY=VALUE`. A value that cannot be used is an OptionError.

    A sink holds every number of a record. One that holds only its overview says so by an attribute `detail`,
    "overview", and has an option `detail`, by which it holds everything: `detail="full"`. On the command line
    this option of all chosen sinks is `--detail`.

    A sink that writes into a dashboard which the caller opened, and fills too, says so by an attribute
    `belongs_to_caller`: during training it is called in the loop, so that rows stay in order. All other sinks
    are then each called on a thread of their own. A sink that loses something without an error says what in
    an attribute `problems`, a list of lines.

    `fno_telemetry.testing.sinks.check_sink` tests everything that is promised here.
    """

    name: str
    """The name of the plug-in."""

    def open(self, run: RunContext) -> None:
        """Get ready to write, without leaving anything on disk yet; can be called again after `close`.

        SinkUnavailable says why that is impossible and what to do.
        """
        ...

    def write(self, record: CaptureRecord) -> None:
        """Write one record, and leave it unchanged.

        A sink may refuse a record that has no point of its own where it is drawn: a second one of a step, or
        one without a step after one with a step. That is an OptionError, and nothing of it is written.
        """
        ...

    def flush(self) -> None:
        """Return when what was written would survive a kill of the process."""
        ...

    def close(self, ok: bool) -> list[str]:
        """Close everything that this sink opened itself; return lines that say how to look at the result.

        `ok` tells whether the run ended well; what was written stays in either case. Without a record since
        `open` there is nothing to look at: []. So closing twice, or without opening, is allowed.
        """
        ...

    def read_back(self, folder: Path) -> NumbersByStep:
        """Return the numbers that a reader finds in what this sink wrote for runs in `folder`.

        This works on a new sink that was never opened. It must return all of `keys.numbers(record)`, which is
        every defined statistic of the input, modules, outputs and blocks, with a relative error of at most
        PRECISION; of a sink with the `detail` "overview", all of `keys.numbers(select_overview(record))`. Two
        losses are allowed: numbers outside the normal range of float32, and, where a sink documents a limit
        on how much it stores, whole statistics. More keys are allowed. For a step that was written twice the
        last value counts. {} if nothing was written.
        """
        ...
