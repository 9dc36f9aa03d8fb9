"""A watch in several processes: one record of what all of them have measured in a step."""

from collections.abc import Callable

from torch import nn

from fno_telemetry.processes.group import find_group
from fno_telemetry.processes.meeting import Meeting
from fno_telemetry.processes.merging import Merged, Merging, NotTogether
from fno_telemetry.processes.rows import Measured
from fno_telemetry.wording import describe_error


class Together:
    """Merges the records of a training over its processes, as long as all of them take part.

    Where one does not come, or a collective fails, this is over in all that are left: `why_alone` says why,
    and from then on the first process records what it measures itself.
    """

    def __init__(self, model: nn.Module, options: str, note: Callable[[str], None]) -> None:
        self.why_alone: str | None = None
        self._note = note
        self._merging: Merging | None = None
        self._meeting: Meeting | None = None
        try:
            self._meeting = Meeting(model, options)
        except Exception as error:  # noqa: BLE001 - stores raise what they like
            self._end(describe_error(error))

    def merge(self, step: int, measured: Measured | None) -> Merged | None:
        """Return what all processes have measured, in the first one; None in the others, or if it is over.

        `measured` is None where this process could not measure the step. NotTogether, in all processes, for a
        step that one of them could not measure.
        """
        if self._meeting is None:
            return None
        try:
            why = self._meeting.meet()
            if why is not None:
                self._end(why)
                return None
            if self._merging is None:
                self._merging = Merging(find_group(in_training=True))
            return self._merging.merge(step, measured)
        except NotTogether:
            raise
        except Exception as error:  # noqa: BLE001 - nothing reaches the loop
            self._end(describe_error(error))
            return None

    @property
    def is_over(self) -> bool:
        """Whether processes record what they measure themselves."""
        return self.why_alone is not None

    def leave(self) -> None:
        """Say that this process merges no further record."""
        if self._meeting is not None:
            self._meeting.leave()
            self._meeting = None

    def _end(self, why: str) -> None:
        self.why_alone = why
        self.leave()
        self._note(f"records are those of the first process alone from here on: {why}")
