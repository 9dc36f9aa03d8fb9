"""Activations are handed out again only for the same tensor, unchanged, in the same layout."""

import gc
import weakref

import pytest
import torch

from fno_telemetry.measuring.activation_cache import ActivationCache
from fno_telemetry.statistics.activation import Layout
from fno_telemetry.statistics.channels import Channels
from fno_telemetry.statistics.samples import Samples
from fno_telemetry.statistics.spectrum import Spectrum
from fno_telemetry.statistics.values import Values

LAYOUT = Layout(0, 1)


def test_a_living_unchanged_tensor_has_one_activation():
    measured, tensor = ActivationCache(), torch.rand(3, 4)
    activation = measured.activation(tensor, LAYOUT)
    assert measured.activation(tensor, LAYOUT) is activation
    assert measured.activation(tensor, Layout(0, None)) is not activation
    assert measured.activation(tensor.view(3, 4), LAYOUT) is not activation


def test_a_tensor_that_was_written_to_is_measured_anew():
    measured, tensor = ActivationCache(), torch.rand(3, 4)
    activation = measured.activation(tensor, LAYOUT)
    tensor += 1
    again = measured.activation(tensor, LAYOUT)
    assert again is not activation
    # A write through `.data` leaves the version alone, so it has to be told.
    measured.forget(tensor.data[1:])
    assert measured.activation(tensor, LAYOUT) is not again


def test_tensors_of_inference_mode_are_always_measured_anew():
    measured = ActivationCache()
    with torch.inference_mode():
        tensor = torch.rand(3, 4)
    assert measured.activation(tensor, LAYOUT) is not measured.activation(tensor, LAYOUT)


@pytest.mark.parametrize("end", ["gone", "cleared", "crowded out"])
def test_no_memory_is_kept_beyond_the_tensor(end):
    measured, tensor = ActivationCache(), torch.rand(3, 4)
    activation = weakref.ref(measured.activation(tensor, LAYOUT))
    others = []
    if end == "cleared":
        measured.clear()
    elif end == "crowded out":
        others = [torch.rand(3) for _ in range(8)]
        for other in others:
            measured.activation(other, Layout(None, None))
    else:
        del tensor
    gc.collect()
    assert activation() is None


@pytest.mark.parametrize("is_light", [False, True])
def test_what_was_measured_is_freed_at_once(is_light):
    cache = ActivationCache(is_light)
    tensor = torch.randn(4, 16, 8, 8)
    cached = cache.cached(tensor, Layout(0, 1, (2, 3)))
    for statistic in (Values(), Spectrum(), Samples(), Channels()):
        cached.state_of(statistic)
    activation = weakref.ref(cached.activation)
    gc.disable()
    try:
        del cached, tensor
        assert activation() is None
    finally:
        gc.enable()
