"""Following a forward: what descends from what, which sums grow, and what a Fourier transform says."""

import gc
import weakref

import pytest
import torch
from torch import nn

from fno_telemetry.isolation.hooks import Hook
from fno_telemetry.tracing.events import (
    ActivationCalled,
    BranchesAdded,
    CallEnded,
    Failed,
    ResidualAdded,
)
from fno_telemetry.tracing.forward_trace import ForwardTrace
from fno_telemetry.tracing.fourier_calls import read_call
from fno_telemetry.tracing.lineage import MODEL_INPUT, Lineage, LineageTable, members


class Notes:
    """A listener that writes everything down, without tensors."""

    def __init__(self):
        self.calls, self.functions, self.sums, self.residuals, self.errors = [], [], [], [], []

    def on(self, event):
        match event:
            case CallEnded():
                self.calls.append((event.call.path, event.call.number, event.call.spectral))
            case ActivationCalled():
                self.functions.append((event.parent.path, event.name, event.number))
            case BranchesAdded():
                spectral, local = [c.path for c in event.spectral], [c.path for c in event.local]
                self.sums.append((spectral, local, event.parent.path))
            case ResidualAdded():
                self.residuals.append(([c.path for c in event.spectral], event.parent.path))
            case Failed():
                self.errors.append((event.where, event.error))


class Transform(nn.Module):
    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x), n=x.shape[-1])


class Network(nn.Module):
    """One spectral layer, others around it, and a forward to be set."""

    def __init__(self, body):
        super().__init__()
        self.spectral, self.first, self.second = Transform(), nn.Linear(6, 6), nn.Linear(6, 6)
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def follow(model, *batches, roles=None):
    notes = Notes()
    with ForwardTrace(model, notes, roles) as trace, torch.no_grad():
        for batch in batches or (torch.rand(2, 6),):
            with trace.batch():
                model(batch)
    assert notes.errors == []
    return notes


def written(s):
    buffer = torch.zeros(s.shape)
    buffer[:] = s
    return buffer


def written_into_a_view(s):
    buffer = torch.zeros(s.shape)
    buffer.view(-1).add_(s.view(-1))
    return buffer


@pytest.mark.parametrize(
    ("body", "sums", "residuals"),
    [
        (lambda m, x: m.spectral(x) + m.first(x), [["first"]], 0),
        (lambda m, x: x + m.spectral(x), [], 1),
        (lambda m, x: m.spectral(x) + x.clone(), [], 1),
        (lambda m, x: m.spectral(x) + x.view(2, 6).contiguous().to(torch.float32), [], 1),
        (lambda m, x: m.spectral(m.first(x)) + x, [], 1),
        (lambda m, x: m.spectral(x) + x.requires_grad_(False), [], 1),
        (lambda m, x: sum([m.spectral(x), x]), [], 1),
        (lambda m, x: x + (m.first(x) + m.spectral(x)).tanh(), [["first"]], 1),
        (lambda m, x: x + m.spectral(x) + m.first(x) + m.second(x), [["first", "second"]], 1),
        (lambda m, x: m.spectral(x) + m.second(m.first(x)), [["first", "second"]], 0),
        # A value made of x in passing is not x; beside a spectral branch it is a local one without a name.
        (lambda m, x: m.spectral(x) + x * 2, [[]], 0),
        (lambda m, x: x * 2 + (m.spectral(x) + m.first(x)), [["first"]], 0),
        (lambda m, x: torch.add(m.spectral(x), x, alpha=0.5), [[]], 0),
        # A function that hands its input on has changed nothing.
        (lambda m, x: m.spectral(x) + nn.functional.dropout(x, 0.5, training=False), [], 1),
        # Written into a tensor, or into a view of it.
        (lambda m, x: written(m.spectral(x)) + m.first(x), [["first"]], 0),
        (lambda m, x: written_into_a_view(m.spectral(x)) + m.first(x), [["first"]], 0),
        # Only the first sum of a branch counts, and only the first return to the input.
        (lambda m, x: (m.spectral(x) + m.first(x)).tanh() + m.second(x), [["first"]], 0),
        (lambda m, x: x + (x + m.spectral(x)).tanh(), [], 1),
        # What the spectral branch descends from through another spectral layer is an earlier block's input.
        (lambda m, x: x + m.spectral(m.spectral(x)), [], 0),
        (lambda m, x: m.first(x) + m.spectral(m.spectral(x)), [], 0),
        # No addition of two tensors of the forward.
        (lambda m, x: m.spectral(x) + 1, [], 0),
        (lambda m, x: m.spectral(x) + torch.ones(6), [], 0),
        (lambda m, x: (y := m.spectral(x)) + y, [], 0),
        (lambda m, x: m.first(x) + m.second(x), [], 0),
        (lambda m, x: torch.cat([m.spectral(x), m.first(x)]), [], 0),
        (lambda m, x: m.spectral(x) * m.first(x), [], 0),
    ],
)
def test_branches_meet_where_they_are_added_and_nowhere_else(body, sums, residuals):
    notes = follow(Network(body))
    assert notes.sums == [(["spectral"], local, "") for local in sums]
    assert notes.residuals == [(["spectral"], "")] * residuals


def test_every_batch_starts_anew():
    class Remembers(Network):
        """Adds what the last forward made, which is nothing of this one."""

        kept = None

        def forward(self, x):
            s = self.spectral(x)
            y = s if self.kept is None else s + self.kept
            self.kept = self.first(x)
            return y

    notes = follow(Remembers(None), torch.rand(2, 6), torch.rand(2, 6), torch.rand(2, 6))
    assert notes.sums == notes.residuals == []
    assert [call for call in notes.calls if call[0] == "first"] == [("first", 0, False)] * 3


def test_nothing_is_followed_outside_of_batches():
    model, notes = Network(lambda m, x: x + m.spectral(x)), Notes()
    with ForwardTrace(model, notes) as trace:
        model(torch.rand(2, 6))
        with trace.batch():
            pass
        model(torch.rand(2, 6))
    assert notes.calls == notes.residuals == notes.errors == []


def test_roles_that_are_given_overrule_what_is_seen():
    body = Network(lambda m, x: m.first(x) + m.second(x))
    assert follow(body, roles={"first": "spectral"}).sums == [(["first"], ["second"], "")]
    body = Network(lambda m, x: m.spectral(x) + m.second(x))
    notes = follow(body, roles={"spectral": "other"})
    assert (notes.sums, [path for path, _, spectral in notes.calls if spectral]) == ([], [])


def test_a_listener_that_raises_at_everything_does_not_reach_the_forward():
    class Broken:
        def on(self, event):
            raise ValueError(event)

    model, x = Network(lambda m, x: m.first(x)), torch.rand(2, 6)
    with ForwardTrace(model, Broken()) as trace, trace.batch():
        assert torch.equal(model(x), model.first(x))


def test_a_listener_that_raises_does_not_reach_the_forward():
    class Fails(Notes):
        def on(self, event):
            if isinstance(event, CallEnded):
                raise ValueError(event.call.path)
            super().on(event)

    model, notes, x = Network(lambda m, x: m.first(x)), Fails(), torch.rand(2, 6)
    with ForwardTrace(model, notes) as trace, trace.batch():
        y = model(x)
    assert torch.equal(y, model(x))
    assert [(where, str(error)) for where, error in notes.errors] == [("first", "first"), ("", "")]


def test_a_hook_returns_none_whatever_its_body_returns():
    assert Hook(lambda *arguments: sum(arguments))(1, 2) is None


def test_terms_of_a_sum_live_no_longer_than_the_sum_is_unused():
    alive = []

    def body(m, x):
        s, t = m.spectral(x), m.first(x)
        alive[:] = [weakref.ref(s), weakref.ref(t)]
        total = s + t
        del s, t
        total.tanh()
        assert [ref() for ref in alive] == [None, None]
        return total

    follow(Network(body))
    assert len(alive) == 2


def test_lineages_are_gone_with_their_tensors():
    table = LineageTable()
    tensor = torch.rand(3)
    table.set_made(tensor, MODEL_INPUT)
    assert table.get(tensor) == Lineage(calls=0, makers=1, values=1, value=1)
    # Another tensor over the same memory is another tensor.
    assert table.get(tensor.view(3)) is None
    assert len(table) == 1
    del tensor
    gc.collect()
    assert len(table) == 0


def test_values_have_a_bit_each_and_descendants_hold_them_all():
    table = LineageTable()
    x, y = torch.rand(2), torch.rand(2)
    table.set_made(x, MODEL_INPUT)
    table.set_made(y, table.union([x, torch.rand(1)])._replace(calls=4))
    assert table.get(y) == Lineage(calls=4, makers=1, values=3, value=2)
    assert table.union([x, y]) == Lineage(calls=4, makers=1, values=3, value=0)
    assert table.union([torch.rand(1)]) is None
    assert [tensor is kept for (tensor, _), kept in zip(table.items(), (x, y), strict=True)] == [True, True]
    assert table.pop(x) is not None and table.pop(x) is None
    table.clear()
    assert table.get(y) is None


def test_members_are_the_bits_that_are_set():
    assert list(members(0b1010010001)) == [0, 4, 7, 9]
    assert list(members(0)) == []
    assert list(members(1 << 1000)) == [1000]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "axes", "halved"),
    [
        ("rfft", (), {}, (2,), True),
        ("fft", (None, 1), {}, (1,), False),
        ("fft", (), {"dim": -3}, (0,), False),
        ("rfft2", (), {}, (1, 2), True),
        ("fft2", (), {"dim": (0, -1)}, (0, 2), False),
        ("rfftn", (), {}, (0, 1, 2), True),
        ("rfftn", ((4, 5),), {}, (1, 2), True),
        ("fftn", (None, [-1, -2]), {"norm": "ortho"}, (2, 1), False),
    ],
)
def test_a_call_tells_its_axes_shape_and_norm(name, args, kwargs, axes, halved):
    x = torch.rand(3, 4, 5)
    call = read_call(name, (x, *args), kwargs, getattr(torch.fft, name)(x, *args, **kwargs))
    assert (call.axes, call.shape, call.halved) == (axes, (3, 4, 5), halved)
    assert call.norm == kwargs.get("norm", "backward")
    assert call.complete is None


def test_an_inverse_call_tells_which_modes_are_not_zero():
    spectrum = torch.zeros(2, 3, 6, 5, dtype=torch.complex64)
    spectrum[0, 1, :2, 1] = 1
    spectrum[1, 2, -1, 0] = 1j
    out = torch.fft.irfft2(spectrum, s=(6, 8))
    call = read_call("irfft2", (spectrum,), {"s": (6, 8)}, out)
    expected = torch.zeros(6, 5, dtype=torch.bool)
    expected[:2, 1] = expected[-1, 0] = True
    assert torch.equal(call.nonzero.any(0), expected)
    assert not (call.complete & call.nonzero).all()
    assert (call.axes, call.shape) == ((2, 3), (2, 3, 6, 8))
    # Halved along an axis that is not the last one, the mask would be in another order.
    swapped = read_call("irfftn", (spectrum,), {"dim": (3, 2)}, torch.fft.irfftn(spectrum, dim=(3, 2)))
    assert swapped.nonzero is None
    assert not read_call("irfft2", (spectrum * 0,), {}, out).nonzero.any()


def test_a_sum_that_is_doubled_is_told_as_it_was_before():
    told = []

    class Measures(Notes):
        def on(self, event):
            if isinstance(event, ResidualAdded):
                told.append(torch.equal(event.after, event.before + seen[-1]))

    seen = []

    def body(m, x):
        seen.append(m.spectral(x))
        y = x + seen[-1]
        return y + y

    with ForwardTrace(model := Network(body), Measures()) as trace, torch.no_grad(), trace.batch():
        model(torch.rand(2, 6))
    assert told == [True]
