"""One table says what each number is called and how it is judged."""

import pytest

import fno_telemetry as ft
from fno_telemetry import plugins
from fno_telemetry.quantities import QUANTITIES, Quantity, by_rank, columns, look_up, select

OWN = Quantity(name="peak", title="largest |x|", unit="x", rank=3)


@pytest.mark.parametrize("name", plugins.STATISTICS)
def test_every_number_of_a_built_in_statistic_is_in_the_table(name):
    for quantity in plugins.load("statistics", name)().quantities:
        assert QUANTITIES[quantity.name] is quantity


def test_every_quantity_of_the_table_belongs_to_one_statistic_or_to_a_training():
    given = [q.name for name in plugins.STATISTICS for q in plugins.load("statistics", name)().quantities]
    given += ["band_error", "spectrum_ratio", "band_coherence", "update_to_weight", "moved"]
    given += ["resolution_difference", "resolution_gain"]
    assert sorted(given) == sorted(QUANTITIES)


def test_what_a_record_stores_is_looked_up_after_the_table_and_before_the_unknown():
    found = look_up(["stranger", "peak", "gain", "rms"], [OWN])
    assert list(found) == ["rms", "gain", "peak", "stranger"]
    assert found["peak"] is OWN
    assert found["stranger"] == Quantity(name="stranger", title="stranger")


def test_a_record_cannot_rename_a_number_of_the_table():
    assert look_up(["rms"], [Quantity(name="rms", title="mine")])["rms"] is QUANTITIES["rms"]


def test_columns_are_those_that_some_entry_has():
    stats = [{"rms": 1.0, "p50": 1.0}, {"rms": None, "peak": 2.0}]
    assert [quantity.column for quantity in columns(stats, [OWN])] == ["rms", "largest |x|"]


def test_the_most_telling_comes_first():
    assert [q.name for q in by_rank([*select("p50", "gain"), OWN])] == ["gain", "peak", "p50"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "", "title": "a"}, "name"),
        ({"name": "a", "title": "two\nlines"}, "title"),
        ({"name": "a", "title": "a", "unit": 3}, "unit"),
        ({"name": "a", "title": "a", "worse": "sideways"}, "expected one of up, down, either, none"),
        ({"name": "a", "title": "a", "rank": "b"}, "rank='b'; expected a whole number"),
        ({"name": "a", "title": "a", "gives_way": True}, "gives_way=True; expected a whole number"),
        ({"name": "a", "title": "a", "compared": "no"}, "compared='no'; expected true or false"),
        ({"name": "a", "title": "a", "in_overview": 1}, "in_overview=1; expected true or false"),
        ({"name": "a", "title": "a", "heading": "\x1b[31mred"}, "heading=.*; expected printable text"),
        ({"name": "a", "title": "a", "heading": 3}, "heading=3; expected printable text"),
        ({"name": "a", "title": "a", "rises": "two\nlines"}, "rises=.*; expected printable text"),
    ],
)
def test_what_no_view_could_show_is_refused(arguments, message):
    with pytest.raises(ft.OptionError, match=message):
        Quantity(**arguments)
