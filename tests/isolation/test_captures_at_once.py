"""Captures inside of captures and in several threads do not see one another, and all is put back."""

import os
import random
import signal
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fno_telemetry as ft
from support.notes import Notes


class Captures(nn.Module):
    """Captures `other` inside its forward, or itself where there is none."""

    def __init__(self, other=None):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.5))
        self.other = [other or self]
        self.records = Notes()
        self.busy = False

    def forward(self, x):
        if not self.busy:
            self.busy = True
            self.records.append(ft.capture(self.other[0], x + 1))
            self.busy = False
        return nn.functional.gelu(self.part(x))


@pytest.mark.parametrize("itself", [False, True])
def test_a_capture_inside_a_forward_records_its_own_and_the_one_around_it_its_own(
    itself, small_network, images
):
    other = None if itself else small_network()
    model = Captures(other)
    model.busy = True
    expected = ft.capture(model, images)
    inner = ft.capture(other or model, images + 1)
    model.busy = False
    record = ft.capture(model, images)
    assert [m.name for m in record.modules] == ["part.0", "part.1", "#gelu"]
    assert (record.modules, record.output, record.errors) == (expected.modules, expected.output, ())
    assert (model.records[-1].modules, model.records[-1].blocks) == (inner.modules, inner.blocks)
    assert model.training and model.part[1].training


def test_a_capture_between_the_batches_of_another_one_changes_neither(small_network, images):
    model = small_network()
    batches = [images[:4], images[4:]]
    expected = ft.capture(model, batches)
    inner = []
    record = ft.capture(model, batches, progress=lambda _: inner.append(ft.capture(model, batches)))
    assert record.modules == expected.modules
    assert [one.modules for one in inner] == [expected.modules] * 2


def in_threads(*bodies):
    """Run all bodies at once, each in a thread of its own, and return what they return."""
    found = [None] * len(bodies)
    ready = threading.Barrier(len(bodies))

    def run(index):
        ready.wait()
        found[index] = bodies[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class Slow(nn.Module):
    """Draws random numbers and notes when it runs in which mode."""

    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))
        self.modes = Notes()

    def forward(self, x):
        self.calls += 1
        noise = torch.rand(()) + random.random() + np.random.rand()
        time.sleep(0.02)
        self.modes.append((self.training, self.part.training, float(self.calls)))
        return self.part(x) + noise


def random_states():
    return torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()


@pytest.mark.parametrize("same_model", [False, True])
def test_captures_in_several_threads_record_what_they_record_one_after_the_other(same_model, images):
    first = Slow()
    models = [first, first, first] if same_model else [first, Slow(), Slow()]
    batches = [images[:4], images[4:]]
    expected = [ft.capture(model, batches) for model in models]
    before = random_states()
    for model in models:
        model.modes.clear()
    records = in_threads(*(lambda model=model: ft.capture(model, batches) for model in models))
    for record, one in zip(records, expected, strict=True):
        assert (record.modules, record.output, record.errors) == (one.modules, one.output, ())
    assert random_states() == before
    for model in models:
        assert model.training and model.part.training
        assert float(model.calls) == 0
        assert {mode[:2] for mode in model.modes} == {(False, False)}
        assert {mode[2] for mode in model.modes} == {1.0, 2.0}


def test_what_another_thread_runs_meanwhile_is_not_recorded(images):
    model = Slow().eval()
    expected = ft.capture(model, images)
    stop = threading.Event()

    def train():
        # The parts alone: the buffer of the whole counts its calls.
        while not stop.is_set():
            model.part(images + 7)

    def captured():
        try:
            return ft.capture(model, images, forward=lambda x: model(x))
        finally:
            stop.set()

    _, record = in_threads(train, captured)
    assert [(m.name, m.call) for m in record.modules] == [(m.name, 0) for m in expected.modules]
    assert record.module("part.0").stats == expected.module("part.0").stats


def test_eager_blocks_that_overlap_in_two_threads_leave_the_compiler_on(images):
    pytest.importorskip("torch._dynamo")
    from fno_telemetry.isolation.compilation import eager

    runs = []

    def backend(graph, inputs):
        def run(*args):
            runs.append(1)
            return graph.forward(*args)

        return run

    model = torch.compile(nn.Conv2d(1, 2, 1), backend=backend)
    with torch.no_grad():
        model(images)
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def first():
        with eager():
            entered.set()
            leave.wait()
        left.set()

    def second():
        entered.wait()
        with eager():
            leave.set()
            left.wait()

    in_threads(first, second)
    runs.clear()
    with torch.no_grad():
        model(images)
    assert runs == [1]
    torch._dynamo.reset()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without forks")
def test_a_process_forked_during_a_capture_captures(images):
    running, end = threading.Event(), threading.Event()

    def wait(module, arguments):
        running.set()
        end.wait(20)

    slow = nn.Sequential(nn.Conv2d(1, 2, 1))
    slow.register_forward_pre_hook(wait)
    model = nn.Sequential(nn.Conv2d(1, 2, 1))
    expected = ft.capture(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons advise against forks beside threads
        thread = threading.Thread(target=lambda: ft.capture(slow, images))
        thread.start()
        assert running.wait(20)
        child = os.fork()
    if child == 0:
        signal.alarm(20)  # without a handler this ends the process
        code = 1
        try:
            code = 0 if ft.capture(model, images).modules == expected.modules else 2
        finally:
            os._exit(code)
    end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
