"""`compare`: whether records can be compared, and as a pair, as a series or as runs of one experiment."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fno_telemetry.comparison.break_steps import compare_series
from fno_telemetry.comparison.learning import has_learned_since
from fno_telemetry.comparison.pairs import compare_pair
from fno_telemetry.comparison.results import Comparison
from fno_telemetry.comparison.run_groups import compare_runs
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.errors import ReportError
from fno_telemetry.keys import VALIDATION
from fno_telemetry.records import CaptureRecord, require_records
from fno_telemetry.wording import format_number, join_names

_MOST_NAMED = 4  # parameters that did not change

LARGE_RATIO = 2.0
"""A note about different inputs names their rms if the largest is this many times the smallest."""

LEARNED = (
    "the network learned most of what it knows after the first report: only values that are not finite, dead "
    "or far out of range are worse"
)
"""The note of a comparison that judges changes as learning."""

TWO_STAGES = "a training is compared with a validation, which runs in another mode and on other batches"
"""The note of a comparison of records of both stages."""


def compare(
    first: CaptureRecord,
    *others: CaptureRecord,
    thresholds: Thresholds | None = None,
    allow_different_input: bool = False,
    group: bool = False,
) -> Comparison:
    """Compare records of captures on the same input: what changed, where first, since when, and is it worse.

    Two records are compared with each other. More records are a series over their steps or, with `group`,
    runs of one experiment that are each compared with the first. Layers are matched by canonical name, call
    and item.

    Raises:
        OptionError: an argument that is no record.
        ReportError: there is no second record; inputs or numbers of samples differ without
            `allow_different_input`; a series mixes different kinds of steps, or a training and its
            validations.
    """
    require_records("compare", (first, *others))
    if not others:
        raise ReportError("compare needs at least two reports")
    limits = thresholds or Thresholds()
    notes = _notes(first, others, allow_different_input)
    if len({record.stage == VALIDATION for record in (first, *others)}) > 1:
        notes = (*notes, TWO_STAGES)
    if len(others) > 1 and not group:
        _refuse_two_stages((first, *others))
        return _noted(compare_series([first, *others], limits), notes, first, others[-1])
    if any(has_learned_since(first, other) for other in others):
        notes = (*notes, LEARNED)
    if group:
        found = compare_runs(first, others, limits)
    else:
        found = compare_pair(first, others[0], limits, has_learned_since(first, others[0]))
    return _noted(found, notes, first, others[-1])


def _refuse_two_stages(records: Sequence[CaptureRecord]) -> None:
    """Raise ReportError where a series has records of a training and of its validations."""
    validations = sum(record.stage == VALIDATION for record in records)
    if 0 < validations < len(records):
        raise ReportError(
            f"{validations} of {len(records)} records are of validations, which are a series of their own; "
            "compare one of the two, such as `ft.load_history(path, stage='val')`"
        )


def _notes(
    first: CaptureRecord, others: Sequence[CaptureRecord], allow_different_input: bool
) -> tuple[str, ...]:
    digests = {record.input_digest for record in (first, *others)}
    samples = {record.summary.get("n_samples") for record in (first, *others)}
    if len(digests) == 1 and len(samples) == 1:
        return ()
    if not allow_different_input:
        what = "inputs (digests)" if len(digests) > 1 else "numbers of samples"
        raise ReportError(
            f"the reports have different {what}, so differences would not show changes of the weights; "
            "capture on the same samples, or pass `allow_different_input=True`"
        )
    sizes = [record.input.stats.get("rms") for record in (first, *others) if record.input]
    known = [size for size in sizes if size]
    scale = ""
    if known and max(known) >= LARGE_RATIO * min(known):
        scale = f" (their rms is {format_number(min(known))} to {format_number(max(known))})"
    notes = [f"the inputs differ{scale}; differences come from the weights and the inputs together"]
    if len({record.input.spatial_axes and _size(record) for record in (first, *others) if record.input}) > 1:
        notes.append("the resolutions differ; spectra are compared mode by mode, in cycles per field")
    return tuple(notes)


def _noted(found: Comparison, notes: Sequence[str], first: CaptureRecord, last: CaptureRecord) -> Comparison:
    """Return the comparison with its notes; where layers differ, also with what did not change."""
    of_parameters = () if found.first_diverging is None else _of_parameters(first, last)
    return replace(found, notes=(*notes, *of_parameters))


def _of_parameters(first: CaptureRecord, last: CaptureRecord) -> Iterator[str]:
    """Yield a note where parameters, or all of them, have the same values in both records."""
    before = {one.name: one for one in first.parameters}
    compared = [(one, one.is_same_as(before[one.name])) for one in last.parameters if one.name in before]
    known = [one for one, is_same in compared if is_same is not None]
    same = [one.name for one, is_same in compared if is_same]
    if same and len(same) == len(known):
        yield "no parameter changed"
    elif same:
        yield f"{len(same)} of {len(known)} parameters did not change: {join_names(same, _MOST_NAMED)}"


def _size(record: CaptureRecord) -> tuple[int, ...]:
    entry = record.input
    return tuple(entry.shape[axis] for axis in entry.spatial_axes) if entry else ()
