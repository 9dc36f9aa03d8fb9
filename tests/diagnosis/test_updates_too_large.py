"""At which record a run takes steps that are too large, and which noise of the loss is none of that."""

import pytest

import fno_telemetry as ft
from fno_telemetry.diagnosis.example_records import add_training, change_module, healthy_record, make_series

USUAL = (0.02, 0.014, 0.012, 0.011, 0.01, 0.01, 0.009, 0.009, 0.008, 0.008)


def find(losses, updates=USUAL):
    records = []
    for loss, update in zip(losses, updates, strict=True):
        record = healthy_record()
        for module in record.modules:
            if module.stats.get("weight_norm") is not None:
                record = change_module(record, module.name, update_to_weight=update)
        records.append(add_training(record, loss=loss))
    return ft.diagnose(*make_series(*records), rules=["updates_too_large"])


def test_losses_of_single_samples_are_no_divergence():
    assert find((0.3, 1.0, 0.9, 1.1, 0.2, 1.3, 0.4, 1.2, 0.9, 1.0)) == ()


def test_a_loss_that_falls_fast_and_then_breaks_breaks_where_it_rises():
    losses = (4e-3, 1e-3, 9e-4, 1e-3, 7e-4, 5e-4, 2e-4, 7e7, 6e6, 5e5)
    [finding] = find(losses)
    assert (finding.step, finding.severity) == (70, "error")
    [finding] = find(losses, (*USUAL[:6], 2.7, *USUAL[7:]))
    assert finding.step == 60 and "far too large" in finding.message


def test_steps_that_grow_slowly_are_found_before_the_loss_rises():
    growing = (0.02, 0.01, 0.005, 0.004, 0.005, 0.006, 0.01, 0.02, 0.035, 0.06)
    [finding] = find((1.0, 0.6, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.35), growing)
    assert finding.step == 80 and "larger and larger steps" in finding.message
    # During a warm-up steps only grow.
    assert find((1.0,) * 5 + (0.5,) * 5, (0.0, 1e-3, 3e-3, 6e-3, 0.01, 0.015, 0.02, 0.03, 0.035, 0.04)) == ()


@pytest.mark.parametrize(("after", "number"), [(1.2, 1), (0.5, 0)])
def test_huge_first_steps_count_if_the_loss_rises_after_them(after, number):
    # Weights that start near zero are changed by more than their size, and learn all the same.
    losses = (0.9, after, 0.6, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4)
    assert len(find(losses, (2.5, 0.7, *USUAL[2:]))) == number
