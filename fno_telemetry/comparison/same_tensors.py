"""Modules that return the tensor of an earlier one, such as a block whose last layer is measured too."""

from collections.abc import Mapping

from fno_telemetry.records import CaptureRecord, ModuleRecord, Value

Key = tuple[str, int, str | None]


def find_same_tensors(before: CaptureRecord, after: CaptureRecord) -> Mapping[Key, str]:
    """Return the place of the earlier module by (name, call, item) of the later one.

    They return one tensor if all numbers of the later one, its histograms and its spectrum are those of the
    earlier one, in both records; a reshape between them changes none of these. Of several earlier modules it
    is the first in execution order. Two constants are alike but not one tensor, unless one module is inside
    the other.
    """
    old, new = _same_in(before), _same_in(after)
    return {key: first.place for key, first in new.items() if key in old and _key(old[key]) == _key(first)}


def _same_in(record: CaptureRecord) -> dict[Key, ModuleRecord]:
    found: dict[Key, ModuleRecord] = {}
    earlier: dict[tuple[object, ...], list[ModuleRecord]] = {}
    for module in sorted(record.modules, key=lambda module: module.order):
        # One tensor has one rms, so that few others need to be compared in full.
        alike = earlier.setdefault((module.stats.get("count"), module.stats.get("rms")), [])
        first = next((each for each in alike if _is_same(each, module)), None)
        if first is not None:
            found[_key(module)] = first
        alike.append(module)
    return found


def _key(module: ModuleRecord) -> Key:
    return module.name, module.call, module.item


def _is_same(earlier: ModuleRecord, later: ModuleRecord) -> bool:
    is_inside = earlier.name.startswith(f"{later.name}." if later.name else "")
    return (
        (is_inside or (later.stats.get("std") or 0) > 0)
        and _of_output(later).items() <= _of_output(earlier).items()
        and later.histogram == earlier.histogram
        and later.log_histogram == earlier.log_histogram
        and later.spectrum == earlier.spectrum
    )


def _of_output(module: ModuleRecord) -> dict[str, Value]:
    """Return the numbers of what a module returned, without that of what it was given."""
    return {name: value for name, value in module.stats.items() if name != "input_rms"}
