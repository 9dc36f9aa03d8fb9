"""Numbers that tell sick runs from healthy ones: quantiles over healthy runs, medians by kind."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

import fno_telemetry as ft
from benchmarks.natural_failures.corpus import HARM, Made, harm_of
from benchmarks.natural_failures.training import HISTORY

Numbers = dict[str, float | None]

MAIN = (
    "input_rms",
    "input_mean_over_std",
    "input_channel_rms_ratio",
    "zero_sample_fraction",
    "moved_share_zero",
    "moved_share_below_1e-4",
    "update_to_weight_median_middle",
    "output_to_target_rms",
    "error_to_mean_predictor",
    "spectrum_ratio_2",
    "output_zero_fraction",
    "loss_last_over_first",
    "test_over_train_error_to_mean_predictor",
)
"""What is shown of every kind."""


def table(made: Sequence[Made]) -> Iterator[str]:
    """Yield Markdown: for each number its quantiles over healthy runs, and the kinds that leave them."""
    healthy, kinds = _sort(made)
    names = sorted({name for numbers in healthy for name in numbers})
    harmful = sum(map(len, kinds.values()))
    yield f"{len(healthy)} healthy runs; {harmful} harmful ones of {len(kinds)} kinds.\n"
    outside_title = "kinds whose runs all leave the healthy range (min to max of the kind)"
    yield f"| number | healthy: min, 1 %, 50 %, 99 %, max | {outside_title} |"
    yield "|---|---|---|"
    for name in names:
        values = _known(healthy, name)
        if not values:
            continue
        low, high = min(values), max(values)
        outside = []
        for kind, members in kinds.items():
            of_kind = _known(members, name)
            if of_kind and len(of_kind) == len(members) and (min(of_kind) > high or max(of_kind) < low):
                outside.append(f"{kind} ({_show(min(of_kind))} to {_show(max(of_kind))})")
        quantiles = ", ".join(_show(float(np.quantile(values, q))) for q in (0, 0.01, 0.5, 0.99, 1))
        yield f"| {name} | {quantiles} | {'; '.join(outside)} |"
    yield "\n| kind (runs) | numbers that leave the healthy range most often: share of runs, (median) |"
    yield "|---|---|"
    for kind, members in kinds.items():
        yield f"| {kind} ({len(members)}) | {'; '.join(_telling(members, healthy, names)[:9])} |"


def main_table(made: Sequence[Made]) -> Iterator[str]:
    """Yield Markdown: for each kind the least, the median and the largest of the main numbers."""
    healthy, kinds = _sort(made)
    yield f"| kind (runs) | {' | '.join(MAIN)} |"
    yield "|---" * (len(MAIN) + 1) + "|"
    for title, members in (("**healthy**", healthy), *kinds.items()):
        cells = []
        for name in MAIN:
            values = _known(members, name)
            few = sorted({_show(min(values)), _show(max(values))}) if values else []
            middle = _show(float(np.median(values))) if values else "–"
            cells.append(
                middle if len(few) < 2 else f"{middle} ({_show(min(values))} to {_show(max(values))})"
            )
        yield f"| {title} ({len(members)}) | {' | '.join(cells)} |"


def _sort(made: Sequence[Made]) -> tuple[list[Numbers], dict[str, list[Numbers]]]:
    """Return the numbers of healthy runs, and those of harmful ones by kind."""
    by_run = {each.run: each for each in made}
    kinds: dict[str, list[Numbers]] = {}
    for each in made:
        plain = by_run.get(each.run.plain)
        if each.run.fails and plain is not None and harm_of(each, plain) >= HARM:
            kinds.setdefault(each.run.what, []).append(numbers_of(each))
    return [numbers_of(each) for each in made if not each.run.fails], kinds


def _telling(members: Sequence[Numbers], healthy: Sequence[Numbers], names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        values, of_kind = _known(healthy, name), _known(members, name)
        if not values or not of_kind:
            continue
        low, high = min(values), max(values)
        outside = sum(value < low or value > high for value in of_kind) / len(members)
        if outside > 0:
            far = max(max(v / high if high > 0 else 0, low / v if v > 0 else 0) for v in of_kind)
            found.append((outside, far, f"{name} {outside:.0%} ({_show(float(np.median(of_kind)))})"))
    return [text for _, _, text in sorted(found, reverse=True)]


def numbers_of(made: Made) -> Numbers:
    """Return all numbers of one run: of the trained network, of the test samples, of its history."""
    own: dict[str, Any] = made.facts["numbers"]
    found: Numbers = dict(own["trained"])
    for name in (
        "input_rms",
        "input_mean_over_std",
        "relative_l2",
        "error_to_mean_predictor",
        "output_to_target_rms",
    ):
        one, other = own["trained"].get(name), own["test"].get(name)
        found[f"test_over_train_{name}"] = other / one if one and other is not None else None
    return found | _of_losses(made.facts["losses"]) | _of_history(made)


def _of_losses(losses: Sequence[float]) -> Numbers:
    if not losses:
        return {}
    part = max(1, len(losses) // 8)
    first, middle, last = (
        np.mean(each) for each in (losses[:part], losses[len(losses) // 2 :][:part], losses[-part:])
    )
    values = {
        "loss_last_over_first": last / first,
        "loss_last_over_middle": last / middle,
        "loss_last_over_least": last / np.min(losses),
        "loss_max_over_first": np.max(losses) / first,
    }
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def _of_history(made: Made) -> Numbers:
    path = made.folder / HISTORY
    if not path.exists():
        return {}
    records = ft.load_history(path)
    last = records[-1]
    moved = [p.stats["moved"] for p in last.parameters if p.stats.get("moved") is not None]
    found: Numbers = {}
    if moved:
        found["moved_share_below_1e-4"] = float(np.mean(np.array(moved) < 1e-4))
        found["moved_share_zero"] = float(np.mean(np.array(moved) == 0))
        found["moved_median"] = float(np.median(moved))
        found["moved_max"] = float(np.max(moved))
    for name, record in (
        ("first", records[min(1, len(records) - 1)]),
        ("middle", records[len(records) // 2]),
        ("last", last),
    ):
        updates = [
            entry.stats["update_to_weight"]
            for entry in (*record.modules, *record.parameters)
            if entry.stats.get("update_to_weight") is not None
        ]
        if updates:
            found[f"update_to_weight_median_{name}"] = float(np.median(updates))
            found[f"update_to_weight_max_{name}"] = float(np.max(updates))
            found[f"update_to_weight_min_{name}"] = float(np.min(updates))
    weights = [
        (entry.stats["weight_norm"], before)
        for entry in last.modules
        if entry.stats.get("weight_norm") is not None and (before := _weight_norm(records[0], entry.place))
    ]
    if weights:
        ratios = [after / before for after, before in weights if after is not None]
        found["weight_norm_last_over_first_min"] = min(ratios)
        found["weight_norm_last_over_first_max"] = max(ratios)
    steps = [record.step for record in records]
    found["records"] = len(steps)
    return found


def _weight_norm(record: ft.CaptureRecord, place: str) -> float | None:
    return next((m.stats.get("weight_norm") for m in record.modules if m.place == place), None)


def _known(members: Iterable[Numbers], name: str) -> list[float]:
    return [value for numbers in members if (value := numbers.get(name)) is not None]


def _show(value: float) -> str:
    return f"{value:.3g}"
