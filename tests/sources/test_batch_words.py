"""Batches in words, and which choice of their parts would fit."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fno_telemetry.sources.batch_advice import suggest_choice, suggest_prediction, suggest_target
from fno_telemetry.sources.batch_words import describe_call, describe_parts

FIELD, LABELS = torch.ones(4, 1, 8, 8), torch.ones(4).long()
NINE = ", ".join(f"{index}: (3,) float32" for index in range(6))
Pair = namedtuple("Pair", "x truth")


@dataclass
class Named:
    name: str
    x: torch.Tensor


class Graph:
    """Holds what its keys say, as graphs of torch_geometric do."""

    def __init__(self, **stored):
        self._store = stored

    def keys(self):
        return list(self._store)

    def __getitem__(self, key):
        return self._store[key]


class Odd:
    """Raises when it is looked at."""

    keys = property(lambda self: 1 / 0)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((torch.ones(3, 1),), "one argument: (3, 1) float32"),
        ([torch.ones(3), "a", None], "3 positional arguments: (3,) float32, str, NoneType"),
        ({"x": torch.ones(3).cfloat()}, "1 keyword argument: x=(3,) complex64"),
        ((np.ones((2, 3)),), "one argument: (2, 3) float64"),
        ((Named("a", torch.ones(3, 1)),), "one argument: Named of (name: str, x: (3, 1) float32)"),
        (([torch.ones(3)] * 9,), f"one argument: list of ({NINE} and 3 more)"),
        ((Graph(x=torch.ones(3, 1), y=None),), "one argument: Graph of (x: (3, 1) float32, y: NoneType)"),
        ((), "no argument"),
        ((3,), "one argument: int"),
        ((Odd(),), "one argument: Odd"),
    ],
)
def test_a_batch_is_described_as_the_model_gets_it(batch, words):
    args, keywords = ((), batch) if isinstance(batch, dict) else (batch, {})
    assert describe_call(args, keywords) == words


def test_positional_and_keyword_arguments_are_described_together():
    words = "2 positional arguments: (3,) float32, NoneType and 1 keyword argument: mask=(2,) bool"
    assert describe_call((torch.ones(3), None), {"mask": torch.ones(2).bool()}) == words


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([FIELD, LABELS], "A batch is a list of 0: (4, 1, 8, 8) float32, 1: (4,) int64."),
        ({"x": FIELD, "who": "me"}, "A batch is a dict of x: (4, 1, 8, 8) float32, who: str."),
        (Pair(FIELD, None), "A batch is a Pair of x: (4, 1, 8, 8) float32, truth: NoneType."),
        (SimpleNamespace(x=LABELS, n=3), "A batch is a SimpleNamespace of x: (4,) int64."),
        (FIELD, "A batch is one Tensor: (4, 1, 8, 8) float32."),
        ("text", "A batch is one str: str."),
    ],
)
def test_the_parts_of_a_batch_are_described(batch, words):
    assert describe_parts(batch) == words


def of_x(x):
    return x


def of_two(x, mask, scale=1.0):
    return x


def of_grid(*, grid, y=None):
    return grid


@pytest.mark.parametrize(
    ("batch", "forward", "choice"),
    [
        ([FIELD, FIELD], of_x, ([0], 1)),
        ([FIELD.numpy(), FIELD.numpy()], of_x, ([0], 1)),
        ((None, FIELD, "a", FIELD), of_x, ([1], 3)),
        ((FIELD, FIELD, FIELD), of_two, ([0, 1], 2)),
        ((FIELD, FIELD), of_two, None),
        ((FIELD,), of_x, None),
        (FIELD, of_x, None),
        ([FIELD, FIELD], print, ([0], 1)),
        ({"y": FIELD, "x": FIELD}, of_x, (["x"], "y")),
        ({"field": FIELD, "id": LABELS, "target": FIELD}, of_x, (["field"], "target")),
        ({"grid": FIELD, "y": FIELD, "x": FIELD}, of_grid, (["grid"], "y")),
        ({"mask": FIELD, "x": FIELD, "truth": FIELD}, of_two, (["mask", "x"], "truth")),
        ({"x": FIELD}, of_x, None),
        (Pair(FIELD, FIELD), of_x, (["x"], "truth")),
        (Graph(x=FIELD, y=FIELD), of_grid, (["x"], "y")),
    ],
)
def test_the_choice_that_would_fit_is_told_by_the_forward_and_by_usual_names(batch, forward, choice):
    assert suggest_choice(batch, forward) == choice


def test_another_part_of_the_shape_of_the_output_may_be_the_target():
    other = torch.zeros(4, 1, 8, 8)
    assert suggest_target([FIELD, LABELS, other], FIELD, ["0", "1"]) == 2
    assert suggest_target({"a": LABELS, "b": other.numpy()}, FIELD, ["a"]) == "b"
    assert suggest_target((FIELD, LABELS), FIELD, ["0", "1"]) is None


@pytest.mark.parametrize(
    ("output", "target", "expression"),
    [
        (torch.ones(4, 8, 8, 1), FIELD, "output.movedim(-1, 1)"),
        (FIELD, torch.ones(4, 8, 8), "output.squeeze(1)"),
        (torch.ones(4, 8), torch.ones(4, 1, 8), "output.unsqueeze(1)"),
        (
            torch.ones(4, 8, 9, 1, 2),
            torch.ones(4, 8, 9, 1).cfloat(),
            "torch.view_as_complex(output.contiguous())",
        ),
        (
            torch.ones(4, 8, 9, 1, 2),
            torch.ones(4, 1, 8, 9).cfloat(),
            "torch.view_as_complex(output.contiguous()).movedim(-1, 1)",
        ),
        (torch.ones(4, 8).cfloat(), torch.ones(4, 2, 8), "torch.view_as_real(output).movedim(-1, 1)"),
        ((torch.ones(4), FIELD), FIELD, "output[1]"),
        ({"a": LABELS.float(), "u.v": None, "w": [FIELD]}, FIELD, "output['w'][0]"),
        (Pair(LABELS.float(), FIELD), FIELD, "output.truth"),
        (
            torch.ones(4, 8, 9, 1, 2),
            torch.ones(4, 1, 8, 9),
            "torch.view_as_complex(output.contiguous()).abs().movedim(-1, 1)",
        ),
        (torch.ones(4, 8, 8), torch.ones(4, 9, 9), None),
        (torch.tensor(1.0), FIELD, None),
    ],
)
def test_what_makes_an_output_like_the_target_is_suggested(output, target, expression):
    assert suggest_prediction(output, target) == expression
    if expression is not None:
        made = eval(expression, {"torch": torch, "output": output})
        assert (made.shape, made.is_complex()) == (target.shape, target.is_complex())
