"""The result of a comparison: what changed, where first, since when, and whether it is worse."""

from dataclasses import dataclass

from fno_telemetry.comparison.changes import Change, LayerChange
from fno_telemetry.comparison.trends import Series
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.wording import to_printable


@dataclass(frozen=True)
class GroupFinding:
    """The number of runs in a group in which a statistic of a layer is worse than in the baseline."""

    layer: str
    statistic: str
    runs: int
    of: int


@dataclass(frozen=True)
class Comparison:
    """The changes from the first record to the last, in execution order.

    In a series, `break_step` is the first step that is worse than the step before it and was not recovered
    from; `modules` and `blocks` then compare that step with the one before it. Without a break they compare
    the last record with the first. `accuracy` holds the changes of the loss and of the error against the
    target from the first record to the last, where they are known.
    """

    verdict: str
    severity: str | None
    first_diverging: str | None
    modules: tuple[LayerChange, ...]
    blocks: tuple[LayerChange, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    break_step: int | None = None
    series: Series | None = None
    group: tuple[GroupFinding, ...] = ()
    notes: tuple[str, ...] = ()
    accuracy: tuple[Change, ...] = ()

    @property
    def worse(self) -> bool:
        """Whether anything is worse, not only different."""
        return self.severity in SEVERITIES[1:]

    def __str__(self) -> str:
        worse = [
            f"{layer.place}: {change.message}"
            for layer in (*self.modules, *self.blocks)
            if layer.same_as is None
            for change in layer.changes
            if change.severity != "note"
        ]
        learned = [change.message for change in self.accuracy]
        return "\n".join(map(to_printable, [self.verdict, *self.notes, *learned, *worse]))
