"""What `make bench-diagnosis` measures at length, on one family and a seed of neither half of it."""

from typing import Any

import pytest

import fno_telemetry as ft
from fno_telemetry import plugins
from support import fault_harness, fault_networks, planted_faults

SEED = 11
ELSEWHERE = {"one direction"}  # planted in networks of neuraloperator only
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # neuraloperator's own


@pytest.fixture(scope="module")
def outcomes() -> list[Any]:
    return list(fault_harness.outcomes("fno", SEED))


def test_planted_faults_are_found(outcomes):
    asked = [one for one in outcomes if one.counts]
    missed = [str(one) for one in asked if not one.found]
    assert len(asked) > 30
    assert len(missed) <= 0.05 * len(asked), missed


def test_the_right_layer_comes_first(outcomes):
    asked = [one for one in outcomes if one.counts]
    wrong = [str(one) for one in asked if not one.right]
    assert len(wrong) <= 0.1 * len(asked), wrong


def test_every_fault_is_planted_somewhere(outcomes):
    known = {*planted_faults.FAULTS, *planted_faults.SERIES, *(name for name, *_ in planted_faults.INPUTS)}
    assert {one.fault for one in outcomes} == known - ELSEWHERE


@pytest.mark.parametrize("family", ["fno", "TFNO"])
def test_a_healthy_network_has_no_warning(family):
    for state in ("quiet_made", "quiet_trained"):
        network = getattr(fault_harness, state)(family, SEED)
        for kind, scale in (("waves", 1.0), ("waves", 2.0), ("rough", 1.0), ("shapes", 1.0)):
            samples = scale * fault_networks.held_out(SEED, kind)
            findings = ft.diagnose(ft.capture(network, samples, loss=fault_networks.loss_of))
            assert [str(finding) for finding in findings if finding.severity != "note"] == []


def test_a_run_that_learns_is_not_said_to_break():
    records = [record for record, _ in fault_harness.run("fno", SEED)]
    assert [str(finding) for finding in ft.diagnose(*records) if finding.severity != "note"] == []
    assert not ft.compare(*records).worse


def test_a_spike_of_the_rate_is_a_break_right_after_the_start_and_later():
    outcomes = list(fault_harness.spikes("fno", SEED))
    assert [(one.fault, one.counts, one.found, one.right) for one in outcomes] == [
        (f"rate spikes at step {step}", True, True, True) for step, _ in fault_harness.SPIKES
    ]


def test_modes_beyond_the_resolution_are_noted_of_every_spectral_layer():
    network = plugins.load("architectures", "fno").build(C=1, modes=24, hidden_channels=8, fno_blocks=2)
    findings = ft.diagnose(ft.capture(network.eval(), fault_networks.held_out(SEED)))
    noted = [finding.layer for finding in findings if finding.rule == "unused_modes"]
    assert noted == ["fno_blocks.0.spectral", "fno_blocks.1.spectral"]


def test_a_dead_lifter_is_one_error_and_not_forty():
    network = fault_harness.quiet_trained("fno", SEED)
    samples = fault_networks.held_out(SEED)
    anatomy = planted_faults.Anatomy.of(ft.capture(network, samples))
    planted_faults.quiet_lifting(network, anatomy, 0, 0.0)
    findings = ft.diagnose(ft.capture(network, samples))
    causes = [finding for finding in findings if finding.follows_from is None and finding.severity != "note"]
    assert [(cause.rule, cause.layer) for cause in causes] == [("dead_layer", "lifter.conv2")]
    assert len([finding for finding in findings if finding.follows_from == causes[0].id]) > 10
