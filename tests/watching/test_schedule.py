"""Schedules: which steps are due, one by one and in stretches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fno_telemetry as ft
from fno_telemetry.watching.schedule import Schedule


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({"every": 10}, {0, 10, 20}),
        ({"every": 10, "start": 5}, {5, 15, 25}),
        ({"every": 10, "stop": 20}, {0, 10}),
        ({"every": 10, "first": 3}, {0, 1, 2, 10, 20}),
        ({"every": None, "steps": [3, 17]}, {3, 17}),
        ({"every": 10, "start": 15, "steps": [3]}, {3, 15, 25}),
        ({"every": lambda step: step in (4, 8)}, {4, 8}),
        ({"every": None}, set()),
    ],
)
def test_steps_that_are_due(options, due):
    schedule = Schedule(**options)
    assert {step for step in range(30) if schedule.is_due(step)} == due


@given(
    every=st.one_of(st.none(), st.integers(1, 9)),
    start=st.integers(0, 9),
    length=st.one_of(st.none(), st.integers(1, 20)),
    first=st.integers(0, 4),
    steps=st.lists(st.integers(0, 30), max_size=3),
    after=st.integers(-1, 30),
    gap=st.integers(0, 12),
)
def test_a_stretch_is_due_where_one_of_its_steps_is(every, start, length, first, steps, after, gap):
    stop = None if length is None else start + length
    schedule = Schedule(every=every, start=start, stop=stop, steps=steps, first=first)
    expected = any(schedule.is_due(step) for step in range(after + 1, after + gap + 1))
    assert schedule.is_due_between(after, after + gap) == expected


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"every": 0}, "`every` is 0; expected a whole number above 0"),
        ({"every": 2.5}, "`every` is 2.5; expected a whole number above 0"),
        ({"every": True}, "`every` is True; expected a whole number above 0"),
        ({"start": -1}, "`start` is -1; expected a whole number, 0 or more"),
        ({"start": 5, "stop": 5}, "`stop` is 5; expected a whole number above `start`, which is 5"),
        ({"steps": [1, "2"]}, "`steps` is [1, '2']; expected whole numbers, 0 or more"),
        ({"steps": "12"}, "`steps` is '12'; expected a list of whole numbers"),
        ({"first": -2}, "`first` is -2; expected a whole number, 0 or more"),
    ],
)
def test_what_is_no_schedule_is_refused_in_a_line(options, line):
    with pytest.raises(ft.OptionError) as caught:
        Schedule(**options)
    assert str(caught.value) == line
