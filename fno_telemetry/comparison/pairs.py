"""Two records compared with each other: their changes, and the verdict as a sentence."""

from collections.abc import Sequence
from dataclasses import replace

from fno_telemetry.comparison.accuracy_changes import accuracy_changes
from fno_telemetry.comparison.changes import (
    Change,
    Judgement,
    LayerChange,
    Scales,
    block_change,
    module_change,
    output_change,
    worse_block_changes,
    worse_module_changes,
)
from fno_telemetry.comparison.results import Comparison
from fno_telemetry.comparison.same_tensors import Key, find_same_tensors
from fno_telemetry.comparison.thresholds import Thresholds
from fno_telemetry.findings import SEVERITIES
from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, place_name


def compare_pair(
    before: CaptureRecord, after: CaptureRecord, limits: Thresholds, learning: bool = False
) -> Comparison:
    """Compare a record with an earlier one, layer by layer.

    With `learning`, the changes are those of learning: only values that are no longer finite, dead or
    far beyond its scales are worse.
    """
    judgement = _judgement(before, after, limits, learning)
    old, new = _modules(before), _modules(after)
    same = find_same_tensors(before, after)
    modules = tuple(
        replace(module_change(old[key], entry, judgement), same_as=same.get(key))
        for key, entry in new.items()
        if key in old
    )
    left = output_change(before.output, after.output)
    if left is not None and not any(layer.severity == "error" for layer in modules):
        modules = (*modules, left)
    old_blocks, new_blocks = _blocks(before), _blocks(after)
    blocks = tuple(
        block_change(old_blocks[key], entry, judgement)
        for key, entry in new_blocks.items()
        if key in old_blocks
    )
    diverging = next((layer for layer in modules if layer.differs), None)
    if diverging is None:
        diverging = next((layer for layer in blocks if layer.differs), None)
    added = tuple(place_name(*key) for key in new if key not in old)
    removed = tuple(place_name(*key) for key in old if key not in new)
    accuracy = accuracy_changes(before, after, limits, judged=not learning)
    severity = _highest([*modules, *blocks], accuracy)
    return Comparison(
        verdict=_verdict(modules, blocks, diverging, added, removed, accuracy),
        severity=severity,
        first_diverging=diverging.place if diverging else None,
        modules=modules,
        blocks=blocks,
        added=added,
        removed=removed,
        accuracy=accuracy,
    )


def is_worse(before: CaptureRecord, after: CaptureRecord, limits: Thresholds, learning: bool = False) -> bool:
    """Whether `compare_pair` finds anything worse; much sooner, since no distances are needed for that."""
    judgement = _judgement(before, after, limits, learning)
    old, old_blocks = _modules(before), _blocks(before)
    return (
        any(
            any(worse_module_changes(old[key], entry, judgement))
            for key, entry in _modules(after).items()
            if key in old
        )
        or any(
            any(worse_block_changes(old_blocks[key], entry, judgement))
            for key, entry in _blocks(after).items()
            if key in old_blocks
        )
        or output_change(before.output, after.output) is not None
    )


def _judgement(before: CaptureRecord, after: CaptureRecord, limits: Thresholds, learning: bool) -> Judgement:
    stored = (*after.quantities, *before.quantities)
    return Judgement(limits, Scales.of(before), stored, learning)


def _modules(record: CaptureRecord) -> dict[Key, ModuleRecord]:
    return {(m.name, m.call, m.item): m for m in sorted(record.modules, key=lambda m: m.order)}


def _blocks(record: CaptureRecord) -> dict[tuple[str, int], BlockRecord]:
    return {(block.name, block.call): block for block in record.blocks}


def _highest(layers: Sequence[LayerChange], accuracy: Sequence[Change]) -> str | None:
    known = [*(layer.severity for layer in layers), *(change.severity for change in accuracy)]
    severities = [SEVERITIES.index(severity) for severity in known if severity]
    if not severities:
        return "note" if any(layer.differs for layer in layers) else None
    return SEVERITIES[max(severities)]


def _verdict(
    modules: Sequence[LayerChange],
    blocks: Sequence[LayerChange],
    diverging: LayerChange | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    accuracy: Sequence[Change],
) -> str:
    structure = f"; {len(added)} layers added, {len(removed)} removed" if added or removed else ""
    if not modules and not blocks:
        return f"nothing in common{structure}"
    missed = next((change.message for change in accuracy if change.severity != "note"), None)
    if diverging is None:
        same = f"the same within the thresholds{structure}"
        return same if missed is None else f"worse: {missed}; the layers are {same}"
    worse = [layer for layer in (*modules, *blocks) if layer.severity in SEVERITIES[1:]]
    if not worse:
        differing = sum(layer.differs for layer in modules)
        verdict = "different, not worse" if missed is None else f"worse: {missed}"
        return f"{verdict}: {differing} of {len(modules)} layers, first {diverging.place}{structure}"
    first = worse[0]
    message = next(change.message for change in first.changes if change.severity != "note")
    more = f"; {_count_more(len(worse) - 1)} worse" if len(worse) > 1 else ""
    earlier = "" if diverging is first else f"; the first layer that differs is {diverging.place}"
    error = "" if missed is None else f"; {missed}"
    return f"worse: in {first.place}, {message}{more}{earlier}{error}{structure}"


def _count_more(layers: int) -> str:
    return f"{layers} more layer{' is' if layers == 1 else 's are'}"
