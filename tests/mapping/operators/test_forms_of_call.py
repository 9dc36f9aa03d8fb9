"""Whatever a forward takes and returns: dicts, dataclasses, None, keywords only, lazy parts, prints."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

import fno_telemetry as ft
from support.notes import Notes


class Low(nn.Module):
    """Keeps low frequencies of the last two axes, and answers in the form that `answer` gives."""

    def __init__(self, channels, answer):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, dtype=torch.cfloat) / channels)
        self.answer = answer

    def forward(self, x):
        spectrum = torch.fft.rfft2(x)
        kept = torch.zeros_like(spectrum)
        kept[..., :3, :3] = torch.einsum("bihw,io->bohw", spectrum[..., :3, :3], self.weight)
        return self.answer(torch.fft.irfft2(kept, s=x.shape[-2:]))


@dataclasses.dataclass
class Answer:
    field: torch.Tensor
    note: str = "none"
    spare: torch.Tensor | None = None


class Wrapped(Low):
    """Looks into what it got, whatever the form."""


FORMS = {
    "tensor": (lambda y: y, lambda a: a),
    "tuple with None": (lambda y: (None, y), lambda a: a[1]),
    "list": (lambda y: [y, 3], lambda a: a[0]),
    "dict": (lambda y: {"nothing": None, "field": y}, lambda a: a["field"]),
    "dataclass": (Answer, lambda a: a.field),
    "nested": (lambda y: {"deep": (None, Answer(y))}, lambda a: a["deep"][1].field),
}


class Operator(nn.Module):
    """Keyword-only inputs, one of them optional, and a dataclass with None in it to return."""

    def __init__(self, form="tensor", channels=4):
        super().__init__()
        answer, self.taken = FORMS[form]
        self.lift, self.project = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 1, 1)
        self.spectral, self.local = Low(channels, answer), nn.Conv2d(channels, channels, 1)
        self.noted = Notes()

    def forward(self, *, field, grid, mask=None):
        x = self.lift(torch.cat([field, grid], 1))
        s, t = self.taken(self.spectral(x)), self.local(x)
        y = x + functional.gelu(s + t)
        self.noted.append({"s": s, "t": t, "x": x, "y": y})
        return Answer(self.project(y if mask is None else y * mask), "done")


ROLES = {"lift": "lifting", "project": "projection", "spectral": "spectral", "local": "local"}
SPACE = dict.fromkeys(ROLES, (2, 3))
BLOCKS = [("#0", ["spectral"], ["local"])]


def batch(mask=None):
    return {"field": torch.rand(3, 1, 8, 10), "grid": torch.rand(3, 2, 8, 10), "mask": mask}


@pytest.mark.parametrize("form", FORMS)
def test_a_spectral_layer_may_answer_in_any_form(form, recognised, agree):
    model = Operator(form)
    record = recognised(model, [batch(), batch()], roles=ROLES, space=SPACE, blocks=BLOCKS)
    pairs = [{name: torch.cat([n[name] for n in model.noted[-2:]]) for name in "stxy"}]
    agree(record.blocks, pairs)
    assert [output.item for output in record.outputs] == ["field"]


def test_keyword_only_inputs_of_which_one_is_none_or_not(recognised, agree):
    model = Operator()
    record = recognised(model, batch(torch.rand(3, 1, 8, 10)), roles=ROLES, space=SPACE, blocks=BLOCKS)
    agree(record.blocks, model.noted[-1:])
    assert record.provenance["input"]["shape"] == (3, 1, 8, 10)


class Positional(nn.Module):
    """Several inputs of different rank: a field, a time for each sample, and None."""

    def __init__(self):
        super().__init__()
        self.inner, self.time = Operator(), nn.Linear(1, 1)

    def forward(self, field, time, nothing=None):
        grid = self.time(time)[..., None, None].expand(-1, 2, *field.shape[2:])
        return {"u": self.inner(field=field, grid=grid).field, "extra": nothing}


def test_several_inputs_of_different_rank(recognised, agree):
    model = Positional()
    record = recognised(
        model,
        [(torch.rand(3, 1, 8, 10), torch.rand(3, 1), None)],
        roles={f"inner.{name}": role for name, role in ROLES.items()} | {"inner": "block"},
        space={f"inner.{name}": (2, 3) for name in ROLES} | {"time": ()},
        blocks=[("inner", ["inner.spectral"], ["inner.local"])],
    )
    assert record.blocks[0].stats["spectral_share"] > 0


class Lazily(nn.Module):
    """Makes its layers in the first forward."""

    def __init__(self):
        super().__init__()
        self.operator = None

    def forward(self, field):
        if self.operator is None:
            self.operator = Operator()
        grid = torch.zeros(len(field), 2, *field.shape[2:])
        return self.operator(field=field, grid=grid).field


def test_a_network_made_in_its_first_forward_is_measured_after_it_ran_once(recognised):
    model, x = Lazily(), torch.rand(3, 1, 8, 10)
    model(x)
    recognised(
        model,
        x,
        roles={f"operator.{name}": role for name, role in ROLES.items()} | {"operator": "block"},
        space={f"operator.{name}": (2, 3) for name in ROLES},
        blocks=[("operator", ["operator.spectral"], ["operator.local"])],
    )


def test_lazy_layers_are_refused_until_they_have_a_shape():
    model = nn.Sequential(nn.LazyConv2d(4, 1), nn.GELU())
    x = torch.rand(3, 1, 8, 10)
    with pytest.raises(ft.ModelError, match="run the model once first"):
        ft.capture(model, x)
    model(x)
    assert ft.capture(model, x).module("0").stats["count"] == 3 * 4 * 80


class Printing(Operator):
    def forward(self, field):
        print("entering the forward")  # noqa: T201 - as some libraries do
        grid = torch.zeros(len(field), 2, *field.shape[2:])
        return super().forward(field=field, grid=grid)


def test_a_network_that_prints_prints_as_before_and_is_measured(recognised, agree, capsys):
    model = Printing()
    record = recognised(model, torch.rand(3, 1, 8, 10), roles=ROLES, space=SPACE, blocks=BLOCKS)
    agree(record.blocks, model.noted[-1:])
    printed = capsys.readouterr()
    assert set(printed.out.splitlines()) == {"entering the forward"}
    assert printed.err == ""
