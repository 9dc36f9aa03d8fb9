"""The line in which a watch says how the training goes."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

from fno_telemetry.errors import OptionError
from fno_telemetry.findings import Finding, count_causes, group_by_cause
from fno_telemetry.keys import layers_in_order
from fno_telemetry.records import CaptureRecord
from fno_telemetry.wording import format_number, format_percent, to_encodable, to_one_line

PAUSE = 10.0
"""Seconds between two lines, where each line is one of its own; later a fiftieth of the time so far."""

_LATER = 1 / 50
_WIDTH = 80  # of a terminal that does not tell its own
_CLEAR = "\r\x1b[K"


class LiveLine:
    """Writes a line about the latest record to stderr, in the thread of the loop.

    In a terminal to which nothing else writes, the line is replaced by the next one. Where the loop prints
    into the same terminal, or stderr is a file, each is a line of its own, now and then. A progress bar is
    not disturbed: with `is_asked` the line is written above that of tqdm, else there is none.
    """

    def __init__(self, cost: Callable[[], float], is_asked: bool) -> None:
        self._cost = cost
        self._is_asked = is_asked
        self._next: CaptureRecord | None = None
        self._started = time.monotonic()
        self._written = -math.inf  # when
        self._is_open = False  # whether the cursor is behind a line
        self._is_off = False

    def take(self, record: CaptureRecord) -> None:
        """Note the latest record, from any thread."""
        self._next = record

    def show(self, last: bool = False) -> None:
        """Write the line of the latest record, unless it was written or it is too early; never raises."""
        record = self._next
        if record is None or self._is_off:
            return
        try:
            self._show(record, last)
        except (OSError, ValueError, AttributeError):
            # Of a stream that was closed, for one.
            self._is_off = True

    def close(self) -> None:
        """Write what is left, and end the line."""
        self.show(last=True)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if self._is_open:
                self._is_open = False
                sys.stderr.write("\n")
                sys.stderr.flush()

    def _show(self, record: CaptureRecord, last: bool) -> None:
        bar = _find_bar()
        if bar is not None and not self._is_asked:
            return
        in_place = bar is None and sys.stderr.isatty() and (self._is_asked or not _is_shared())
        now = time.monotonic()
        pause = max(PAUSE, _LATER * (now - self._started))
        if not (in_place or last or self._is_asked or now - self._written >= pause):
            return
        self._next, self._written = None, now
        line = to_encodable(describe_progress(record, self._cost()), sys.stderr.encoding or "utf-8")
        if in_place:
            sys.stderr.write(_CLEAR + line[: _columns() - 1])
            self._is_open = True
        elif bar == "tqdm":
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def make_live_line(progress: bool | None, cost: Callable[[], float]) -> LiveLine | None:
    """Return the line that `watch(progress=…)` asks for; None where there is none.

    By default there is one if stderr is a terminal.
    """
    if progress not in (None, True, False):
        raise OptionError(f"`progress` is {progress!r}; expected True, False or None")
    return LiveLine(cost, bool(progress)) if progress or (progress is None and _is_terminal()) else None


def describe_progress(record: CaptureRecord, cost: float) -> str:
    """Return how a training goes: loss, sizes and low frequencies of blocks, what was found, the cost."""
    return to_one_line(" · ".join(_parts(record, cost)))


def _parts(record: CaptureRecord, cost: float) -> Iterator[str]:
    yield record.spelled_step or "step unknown"
    if (loss := record.summary.get("loss")) is not None:
        yield f"loss {format_number(loss)}"
    layers = layers_in_order(record)
    layers = [layer for layer in layers if layer.role == "block"] or layers
    sizes = [size for layer in layers if (size := layer.stats.get("rms")) is not None]
    if sizes:
        least, most = (format_number(end, 2, keeps_one=False) for end in (min(sizes), max(sizes)))
        yield f"rms {least}" if least == most else f"rms {least}–{most}"
    shares = [share for layer in layers if (share := layer.stats.get("low_frequency_fraction")) is not None]
    if shares:
        yield f"low freq. {format_number(median(shares), 2)}"
    odd = [module.place for module in record.modules if module.stats.get("finite_fraction", 1) != 1]
    if odd:
        yield f"not finite from {odd[0]} on"
    if record.findings:
        yield from _findings(record.findings)
    yield f"{format_percent(float(f'{cost:.2g}'))} of the run's time"


def _findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Yield how many errors or warnings there are, and the first of them."""
    counts = count_causes(findings)
    for severity in ("error", "warning"):
        if number := counts[severity]:
            first = next(c.finding for c in group_by_cause(findings) if c.finding.severity == severity)
            what = f"{first.rule.replace('_', ' ')} in {first.where}"
            yield f"{number} {severity}{'' if number == 1 else 's'} ({what})"
            return


def _is_terminal() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return False


def _is_shared() -> bool:
    """Whether what the loop prints goes to a terminal as well."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stdout.isatty()
    return False


def _find_bar() -> str | None:
    """Return "tqdm" or "rich" while one of them has a bar in the terminal."""
    if type(sys.stderr).__module__.startswith("rich."):
        return "rich"  # which stands in for stderr as long as its bar is there
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    # Not a public name; without it, bars are not seen.
    return "tqdm" if len(getattr(tqdm, "_instances", ())) else None


def _columns() -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH
    return _WIDTH
