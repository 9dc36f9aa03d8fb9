from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fno_telemetry import keys
from fno_telemetry.records import CaptureRecord, freeze_mapping


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("fno_blocks.0.spectral",), "abs_p95/fno_blocks/0/spectral"),
        (("fno_blocks", 1), "abs_p95/fno_blocks@1"),
        (("head", 0, "0"), "abs_p95/head[0]"),
        (("head", 2, "0.amp"), "abs_p95/head@2[0/amp]"),
        (("fno_blocks#gelu",), "abs_p95/fno_blocks#gelu"),
        (("spec_encoder#0",), "abs_p95/spec_encoder#0"),
        (("",), "abs_p95/(model)"),
        (("outputs.input",), "abs_p95/outputs/input"),
    ],
)
def test_a_key_is_the_statistic_and_the_path_with_slashes(place, expected):
    assert expected == keys.key("abs_p95", *place)


def test_the_sides_of_the_model_have_plain_keys():
    assert keys.model_key("abs_p95", "input") == "abs_p95/input"
    assert keys.model_key("abs_p95", "output") == "abs_p95/output"
    assert keys.model_key("abs_p95", "output", "amp") == "abs_p95/output[amp]"


@pytest.mark.parametrize("name", ["input", "output", "target", "accuracy"])
def test_a_module_called_like_a_side_of_the_model_has_another_key(name):
    assert keys.key("rms", name) == f"rms/{name}@0"
    assert keys.key("rms", name, 0, "0") == f"rms/{name}@0[0]"


def test_module_and_block_records_have_the_keys_of_their_name_call_and_item(record: CaptureRecord):
    second = record.module("shared", call=1)
    head = record.module("heads", item="1")
    assert keys.record_key("rms", second) == keys.key("rms", "shared", 1) == "rms/shared@1"
    assert keys.record_key("rms", head) == keys.key("rms", "heads", 0, "1") == "rms/heads[1]"
    assert keys.record_key("gain", record.blocks[-1]) == "gain/spec_encoder#0"


names = st.text(st.sampled_from("ab.0@[]()/%#") | st.characters(codec="utf-8"), max_size=6)
places = st.tuples(names, st.integers(0, 2), st.none() | names)


@given(places, places)
def test_different_places_never_share_a_key(first, second):
    assert (first == second) == (keys.key("rms", *first) == keys.key("rms", *second))


@given(places, st.sampled_from(["input", "output", "target"]), st.none() | names)
def test_no_place_shares_a_key_with_a_side_of_the_model(place, side, item):
    assert keys.key("rms", *place) != keys.model_key("rms", side, item)


@given(st.text(max_size=8), places)
def test_what_stands_before_the_first_slash_is_the_statistic_alone(statistic, place):
    assert keys.key(statistic, *place).count("/") >= 1
    assert keys.key(statistic, *place).partition("/")[0] == keys.key(statistic, "x").partition("/")[0]


@given(places)
def test_a_key_holds_nothing_that_a_dashboard_cannot_store(place):
    key = keys.key("rms", *place)
    assert key.isprintable() or not any(ord(char) < 32 for char in key)
    key.encode()


def test_every_number_of_a_record_has_its_own_key(record: CaptureRecord, examples: SimpleNamespace):
    places = [keys.record_place(module) for module in record.modules]
    places += [keys.model_place(side) for side in ("input", "output", "target")]
    places += [keys.model_place("output", output.item) for output in record.outputs]
    places += [keys.place(parameter.name) for parameter in record.parameters] + [keys.ACCURACY]
    assert sorted(set(places)) == sorted(places)


def test_the_numbers_of_a_record_are_those_that_are_defined(record: CaptureRecord, examples: SimpleNamespace):
    odd = examples.with_stats(record, "lifter", rms=float("nan"), mean=float("inf"), std=None, min=0)
    numbers = dict(keys.numbers(odd))
    assert not {"rms/lifter", "mean/lifter", "std/lifter", "spectral_local_ratio/spec_encoder#0"} & set(
        numbers
    )
    assert numbers["min/lifter"] == 0
    assert numbers["gain/fno_blocks/10"] == 1.3
    assert {"abs_p95/input", "abs_p95/output", "abs_p95/output[amp]", "rms/shared@1"} <= set(numbers)
    assert (numbers["moved/lifter/weight"], numbers["relative_l2/accuracy"]) == (0.25, 0.125)
    assert not {"moved/gate", "output_to_target_rms/accuracy"} & set(numbers)
    everywhere = [*odd.modules, *odd.blocks, odd.input, odd.output, *odd.outputs]
    everywhere += [odd.target, *odd.parameters, odd.accuracy]
    defined = sum(keys.is_defined(value) for entry in everywhere for value in entry.stats.values())
    bands, channels = odd.accuracy.bands, odd.accuracy.channels
    rows = (bands.band_error, bands.spectrum_ratio, bands.band_coherence, channels)
    assert len(numbers) == defined + sum(keys.is_defined(value) for row in rows for value in row)
    assert numbers["band_error/accuracy[band00]"] == 0.25 and numbers["band_error/accuracy[band01]"] == 0
    assert numbers["spectrum_ratio/accuracy[band02]"] == 0.25
    assert numbers["output_to_target_rms/accuracy[channel0]"] == 0.5
    assert not {"band_error/accuracy[band03]", "output_to_target_rms/accuracy[channel1]"} & set(numbers)


def test_no_place_shares_a_key_with_a_band_or_a_channel_of_the_accuracy():
    for item in ("band00", "channel0"):
        assert keys.key("band_error", "accuracy", 0, item) == f"band_error/accuracy@0[{item}]"


def test_each_of_several_inputs_has_keys_as_each_of_several_outputs(record: CaptureRecord):
    both = tuple(replace(record.input, item=item) for item in ("x", "grid"))
    numbers = dict(keys.numbers(replace(record, inputs=both)))
    assert {"rms/input", "rms/input[x]", "rms/input[grid]", "rms/target"} <= set(numbers)
    assert numbers == dict(keys.numbers(record)) | {
        f"{name}/input[{item}]": value
        for item in ("x", "grid")
        for name, value in record.input.stats.items()
        if value is not None
    }


def test_every_key_of_a_validation_begins_with_val_and_no_other_key_does(record: CaptureRecord):
    validation = replace(record, training=freeze_mapping({"stage": "val"}))
    assert dict(keys.numbers(validation)) == {f"val/{key}": value for key, value in keys.numbers(record)}
    # A statistic of this name would have the same keys.
    assert keys.key("val", "rms.lifter") == "%76al/rms/lifter"


@given(st.text(max_size=8), places)
def test_no_key_of_another_record_looks_like_one_of_a_validation(statistic, place):
    assert not keys.key(statistic, *place).startswith("val/")
