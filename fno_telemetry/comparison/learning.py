"""Whether changes are those of learning, which decides what counts as worse.

While a network learns its first steps, every layer changes by factors; one that has learned does not.
"""

from collections.abc import Sequence
from itertools import pairwise

from fno_telemetry.records import CaptureRecord, Value

MOVED = 0.1
"""The relative change of the loss, or of the output's sample variation, that tells learning."""

GROWN = 5.0

LESS_MISSED = 0.75
"""The error against the target, over an earlier one, that tells learning."""


def is_untrained(record: CaptureRecord) -> bool:
    """Whether the record says that no optimizer step was made: untrained weights, or step 0."""
    return record.step == 0 or str(record.summary.get("weights")).startswith("untrained")


def is_trained(record: CaptureRecord) -> bool:
    """Whether the record says that optimizer steps were made: it has a step beyond 0."""
    return record.step is not None and record.step > 0 and not is_untrained(record)


def count_learning(records: Sequence[CaptureRecord]) -> int:
    """Return the index of the record up to which a run learns to tell its samples apart.

    From the first record to this one, each time, the sample variation of the output rises by MOVED, or what
    it is in the unit of the values, while the output is not larger than the input. A rise after a record
    without one is no learning: a spike makes outputs differ, too.
    """
    index = 0
    for before, after in pairwise(records):
        grows = _is_within_input(after) and _rises(_spread(before), _spread(after))
        if not grows and not _rises(_variation(before), _variation(after)):
            break
        index += 1
    return index


def is_learning(records: Sequence[CaptureRecord], before: int, after: int, settled: int) -> bool:
    """Whether the changes between two records of a run, by their indices, are those of learning.

    `settled` is what `count_learning` returns for the run.

    Where the losses are known and one is MOVED from the other, a lower loss is learning, and a higher one is
    not. Otherwise any change since the first record may be, and later ones while the run learns to tell its
    samples apart. The numbers of steps say nothing: one run has learned at step 20, another not at 2,000.
    """
    old, new = records[before].summary.get("loss"), records[after].summary.get("loss")
    if old is not None and new is not None and _moves(old, new):
        return bool(new < old)
    return before == 0 or after <= settled


def has_learned_since(baseline: CaptureRecord, record: CaptureRecord) -> bool:
    """Whether the network learned most of what it knows after the baseline.

    The baseline says that it is untrained, and the record does not; otherwise as `shows_learning`.
    """
    if is_untrained(baseline):
        return not is_untrained(record)
    return shows_learning(baseline, record)


def shows_learning(before: CaptureRecord, after: CaptureRecord) -> bool:
    """Whether the numbers show that the network learned most of what it knows between two records.

    The error against the target fell to LESS_MISSED of what it was; the sample variation of the output at
    least doubled; or the loss fell to half or less; or the rms of the output grew by GROWN or more, to at
    most that of the input: untrained networks return little, and learning brings it to the scale of the data.
    """
    missed, still_missed = (
        None if record.accuracy is None else record.accuracy.stats.get("error_to_mean_predictor")
        for record in (before, after)
    )
    if missed is not None and still_missed is not None and still_missed <= LESS_MISSED * missed:
        return True
    loss, later_loss = before.summary.get("loss"), after.summary.get("loss")
    if loss is not None and later_loss is not None and 2 * later_loss <= loss > later_loss:
        return True
    return _rises(_variation(before), _variation(after), 1.0) or _comes_to_scale(before, after)


def _comes_to_scale(before: CaptureRecord, after: CaptureRecord) -> bool:
    old, new, entered, entered_before = (
        None if entry is None else entry.stats.get("rms")
        for entry in (before.output, after.output, after.input, before.input)
    )
    if old is None or new is None or entered is None or entered_before is None:
        return False
    # A larger input alone makes the output larger.
    return 0 < GROWN * old <= new <= entered <= 2 * entered_before


def _moves(before: Value, after: Value) -> bool:
    return before is not None and after is not None and abs(after - before) >= MOVED * abs(before) > 0


def _rises(before: Value, after: Value, share: float = MOVED) -> bool:
    return before is not None and after is not None and after - before >= share * abs(before) > 0


def _spread(record: CaptureRecord) -> Value:
    """How much samples differ in the output, in the unit of its values."""
    variation = _variation(record)
    rms = None if record.output is None else record.output.stats.get("rms")
    return None if variation is None or rms is None else variation * rms


def _is_within_input(record: CaptureRecord) -> bool:
    entered, left = (None if e is None else e.stats.get("rms") for e in (record.input, record.output))
    return entered is not None and left is not None and left <= entered


def _variation(record: CaptureRecord) -> Value:
    return None if record.output is None else record.output.stats.get("sample_variation")
