"""Plants every fault into every family of networks and asks `diagnose` for it: recall, place, false alarms.

A fault counts where it changes the loss by a tenth or more; those that no loss shows (weights that are never
used, gradients, what is wrong with the input) count always.
"""

import contextlib
import copy
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn

import fno_telemetry as ft
from fno_telemetry.records import freeze_mapping
from support import fault_networks, planted_faults

CHANGE_OF_LOSS = 0.1
HEALTHY_DATA = (
    ("waves", 1.0),
    ("waves", 0.5),
    ("waves", 2.0),
    ("rough", 1.0),
    ("shapes", 1.0),
    ("diffraction", 1.0),
)
OTHER_WIDTHS = (8, 24)
RUN_STEPS = (0, 10, 20, 40, 60)
SPIKES = ((2, 0.5), (25, 1.0))
"""Steps after which the learning rate is this high once."""
BY_DESIGN = frozenset(
    {"one_sided_spectrum", "grid_artifact", "mode_truncation", "unused_modes", "high_frequency_loss"}
)
"""What may be noted of a healthy network: a note of these does not hide the fault behind it."""


@dataclass(frozen=True)
class Outcome:
    """What came of one planted fault."""

    family: str
    seed: int
    fault: str
    rule: str
    strength: float
    change: float  # of the loss, relative; infinite where it counts always
    found: bool
    right: bool
    first: str

    @property
    def counts(self) -> bool:
        """Whether the fault is strong enough to be asked for."""
        return not self.change < CHANGE_OF_LOSS


@dataclass(frozen=True)
class Alarm:
    """A warning or error about a healthy network."""

    family: str
    seed: int
    what: str
    finding: str


def quiet_trained(family: str, seed: int, width: int = 16, steps: int = fault_networks.STEPS) -> nn.Module:
    """Return a copy of a network that is trained once, without what its library prints."""
    return copy.deepcopy(_trained_once(family, seed, width, steps))


@cache
def _trained_once(family: str, seed: int, width: int, steps: int) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):
        return fault_networks.trained(family, seed, width, steps=steps)


def quiet_made(family: str, seed: int, width: int = 16) -> nn.Module:
    """Make a network without what its library prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return fault_networks.make(family, seed, width)


def outcomes(family: str, seed: int, names: Sequence[str] | None = None) -> Iterator[Outcome]:
    """Plant each fault at each strength into one trained network; the depth turns with seed and fault."""
    healthy, samples = quiet_trained(family, seed), fault_networks.held_out(seed)
    record = ft.capture(healthy, samples)
    anatomy = planted_faults.Anatomy.of(record)
    before = loss(healthy, samples)
    for number, (name, fault) in enumerate(planted_faults.FAULTS.items()):
        if names is not None and name not in names:
            continue
        for turn, strength in enumerate(fault.strengths):
            broken = copy.deepcopy(healthy)
            planted = fault.plant(broken, anatomy, seed + number + turn, strength)
            if planted is None:
                continue
            kept = {"loss": fault_networks.loss_of} if fault.gradients else {}
            findings = ft.diagnose(ft.capture(broken, samples, **kept))
            after = loss(broken, samples)
            change = math.inf if fault.unseen or not math.isfinite(after) else abs(after / before - 1)
            yield judged(family, seed, name, fault.rule, strength, change, findings, planted)
    for name, rule, spoil in planted_faults.INPUTS:
        if names is None or name in names:
            findings = ft.diagnose(ft.capture(healthy, spoil(samples.clone())))
            planted = planted_faults.Planted(("input",))
            yield judged(family, seed, name, rule, 0.0, math.inf, findings, planted)
    for number, (name, (rule, plant, strengths)) in enumerate(planted_faults.SERIES.items()):
        if names is None or name in names:
            yield _over_steps(family, seed, name, rule, plant, strengths, number, anatomy, samples, before)


def run(
    family: str, seed: int, spike: tuple[int, float] | None = None
) -> list[tuple[ft.CaptureRecord, float]]:
    """Return a record and a loss at each of RUN_STEPS of a training, from untrained on."""
    samples, found = fault_networks.held_out(seed), []
    with contextlib.redirect_stdout(io.StringIO()):
        for step, network in fault_networks.training(family, seed, spike=spike):
            if step in RUN_STEPS:
                found.append((at_step(ft.capture(network.eval(), samples), step), loss(network, samples)))
    return found


def at_step(record: ft.CaptureRecord, step: int) -> ft.CaptureRecord:
    """Return the record as one of this step."""
    summary = {**record.summary, "checkpoint_step": step, "step_kind": "step"}
    return replace(record, summary=freeze_mapping(summary))


def spikes(family: str, seed: int) -> Iterator[Outcome]:
    """Let the rate spike once, right after the start and in the middle; where it did lasting harm, it counts.

    It is found where the run is said to break at the first record after the spike, whatever the layer.
    """
    for step, rate in SPIKES:
        records, losses = zip(*run(family, seed, (step, rate)), strict=True)
        index = next(index for index, at in enumerate(RUN_STEPS) if at > step)
        before, after = losses[index - 1], losses[index]
        harm = (after if after >= 3 * before else before) / before - 1 if math.isfinite(after) else math.inf
        lasting = not math.isfinite(losses[-1]) or losses[-1] >= 2 * before
        findings = ft.diagnose(*records)
        at = {finding.step for finding in findings if finding.rule == "collapse_at_step"}
        first = findings[0] if findings else None
        found = at == {RUN_STEPS[index]}
        right = found and first is not None and first.rule == "collapse_at_step"
        name = f"rate spikes at step {step}"
        yield Outcome(
            family, seed, name, "collapse_at_step", rate, harm if lasting else 0.0, found, right, str(first)
        )


def milder(family: str, seed: int) -> Iterator[tuple[Outcome, Outcome]]:
    """Plant faults that a network may live with; yield what was found without and with a baseline.

    Here any warning at the right place counts as found: which rule names a mild fault is a matter of degree.
    """
    healthy, samples = quiet_trained(family, seed), fault_networks.held_out(seed)
    record = ft.capture(healthy, samples)
    anatomy = planted_faults.Anatomy.of(record)
    before = loss(healthy, samples)
    for number, (name, strengths) in enumerate(planted_faults.MILDER.items()):
        fault = planted_faults.FAULTS[name]
        for turn, strength in enumerate(strengths):
            broken = copy.deepcopy(healthy)
            planted = fault.plant(broken, anatomy, seed + number + turn, strength)
            if planted is None:
                continue
            captured = ft.capture(broken, samples)
            change = abs(loss(broken, samples) / before - 1)
            kinds = []
            for baseline in (None, record):
                loud = [f for f in ft.diagnose(captured, baseline=baseline) if f.severity != "note"]
                right = any(planted.named_by(finding.layer) for finding in loud)
                first = str(loud[0]) if loud else ""
                kinds.append(Outcome(family, seed, name, fault.rule, strength, change, right, right, first))
            yield kinds[0], kinds[1]


def _over_steps(
    family: str,
    seed: int,
    name: str,
    rule: str,
    plant: Callable[..., Any],
    strengths: Sequence[float | None],
    number: int,
    anatomy: Any,
    samples: torch.Tensor,
    before: float,
) -> Outcome:
    """Train on while a fault comes, at the strengths of each step (None: not yet)."""
    healthy = quiet_trained(family, seed)
    records, planted, after = [], None, before
    for index, strength in enumerate(strengths):
        broken = copy.deepcopy(healthy)
        if strength is not None:
            planted = plant(broken, anatomy, seed + number, strength)
        record = ft.capture(broken, samples)
        records.append(at_step(record, 100 * index))
        after = loss(broken, samples)
    findings = ft.diagnose(*records)
    change = abs(after / before - 1) if math.isfinite(after) else math.inf
    step = 100 * next(index for index, strength in enumerate(strengths) if strength is not None)
    asked = [f for f in findings if f.rule == rule and (rule != "collapse_at_step" or f.step == step)]
    return judged(family, seed, name, rule, 0.0, change, asked, planted)


def judged(
    family: str,
    seed: int,
    name: str,
    rule: str,
    strength: float,
    change: float,
    findings: Sequence[ft.Finding],
    planted: Any,
) -> Outcome:
    """Say whether the rule spoke, and whether what stands on top is at the right place."""
    first = next((f for f in findings if not (f.severity == "note" and f.rule in BY_DESIGN - {rule})), None)
    right = first is not None and planted.named_by(first.layer)
    found = any(finding.rule == rule for finding in findings)
    return Outcome(family, seed, name, rule, strength, change, found, right, str(first))


def alarms(family: str, seed: int) -> Iterator[Alarm]:
    """Diagnose healthy networks: made and trained, on other data and scales, of other widths, by a baseline.

    The baseline is the same network after half of the steps.
    """
    for width in (16, *OTHER_WIDTHS):
        for state, network in (
            ("made", quiet_made(family, seed, width)),
            ("trained", quiet_trained(family, seed, width)),
        ):
            for kind, scale in HEALTHY_DATA if width == 16 else HEALTHY_DATA[:1]:
                samples = scale * fault_networks.held_out(seed, kind)
                what = f"{state}, width {width}, {kind} x {scale:g}"
                kept = {"loss": fault_networks.loss_of} if (kind, scale) == HEALTHY_DATA[0] else {}
                for finding in ft.diagnose(ft.capture(network, samples, **kept)):
                    if finding.severity != "note":
                        yield Alarm(family, seed, what, str(finding))
                yield Alarm(family, seed, what, "")  # one for each capture, so that they are counted
    samples = fault_networks.held_out(seed)
    halfway = ft.capture(quiet_trained(family, seed, steps=fault_networks.STEPS // 2), samples)
    record, what = ft.capture(quiet_trained(family, seed), samples), "trained, by a baseline"
    found = [str(f) for f in ft.diagnose(record, baseline=halfway) if f.severity != "note"]
    yield from (Alarm(family, seed, what, finding) for finding in (*found, ""))
    untrained = ft.capture(quiet_made(family, seed), samples)
    found = [str(f) for f in ft.diagnose(record, baseline=untrained) if f.severity != "note"]
    yield from (Alarm(family, seed, "trained, by the untrained network", finding) for finding in (*found, ""))
    series = [record for record, _ in run(family, seed)]
    found = [str(f) for f in ft.diagnose(*series) if f.severity != "note"]
    found += [ft.compare(*series).verdict] if ft.compare(*series).worse else []
    yield from (Alarm(family, seed, "a run from step 0", finding) for finding in (*found, ""))


def loss(network: nn.Module, samples: torch.Tensor) -> float:
    """Return the loss on these samples."""
    with torch.no_grad():
        return float(fault_networks.loss_of(network(samples), samples))
