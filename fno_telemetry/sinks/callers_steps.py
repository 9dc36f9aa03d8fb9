"""Which steps a sink has written into a dashboard that the caller owns, so that no point is drawn twice."""

from fno_telemetry.errors import OptionError
from fno_telemetry.keys import VALIDATION
from fno_telemetry.records import CaptureRecord


class CallersSteps:
    """The steps of the records that one sink has accepted; what others wrote into the dashboard is unknown.

    `dashboard` is its name in messages. `drawn_at` is the step at which it draws a record without one, None
    if it draws such a record over an axis of its own. A validation has curves of its own, and so may have the
    step of another record.
    """

    def __init__(self, dashboard: str, drawn_at: int | None = None) -> None:
        self._dashboard = dashboard
        self._drawn_at = drawn_at
        self._steps: set[tuple[int, bool]] = set()
        self._latest: int | None = None

    def add(self, record: CaptureRecord) -> None:
        """Accept a record that is about to be written.

        OptionError for a step that was accepted before, or for no step after a step.
        """
        point = self._drawn_at if record.step is None else record.step
        is_validation = record.stage == VALIDATION
        problem = None
        if record.step is None and self._latest is not None:
            problem = f"this record has no step, and the one before it was of step {self._latest}"
        elif point is not None and (point, is_validation) in self._steps:
            problem = f"a record at step {point} was already written"
            if record.step is None:
                problem += ", where a record without a step is drawn"
        if problem is not None:
            raise OptionError(
                f"{self._dashboard}: {problem}; give `ft.capture` another `step` for each record"
            )
        if point is not None:
            self._steps.add((point, is_validation))
        if record.step is not None:
            self._latest = record.step
