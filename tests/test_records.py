"""What a record tells in Python: on one screen, by the name of a module or block, and as rows of a table."""

from dataclasses import replace

import pytest

import fno_telemetry as ft
from fno_telemetry.findings import Finding
from fno_telemetry.records import CaptureRecord, FrozenMapping, freeze_mapping, spell_place


def deep(record: CaptureRecord, layers: int) -> CaptureRecord:
    """The record of a network with this many blocks, with an odd name in each and everything else to tell."""
    module, block = record.module("lifter"), record.block("fno_blocks.0")
    stats = FrozenMapping({**block.stats, "spectral_share": 0.25})
    grads = FrozenMapping({**module.stats, "grad_norm": 0.123456})
    finding = Finding(
        id="0",
        rule="trend",
        severity="note",
        layer="fno_blocks.0",
        step=None,
        report=None,
        message="x" * 300,
        evidence=FrozenMapping(),
        advice="",
    )
    names = [f"encoder.{'branch.' * 20}{index}.spectral\nconv" for index in range(layers)]
    return replace(
        record,
        modules=tuple(replace(module, name=name, order=i, stats=grads) for i, name in enumerate(names)),
        blocks=tuple(replace(block, name=name, stats=stats) for name in names),
        warnings=("w" * 300,) * layers,
        errors=record.skipped,
        findings=tuple(replace(finding, id=str(index)) for index in range(layers)),
        summary=freeze_mapping({**record.summary, "loss": 0.5, "architecture": "A" * 200}),
    )


@pytest.mark.parametrize("layers", [0, 1, 4, 200])
def test_a_record_fits_on_a_screen(record, layers) -> None:
    whole = deep(record, layers)
    lines = repr(whole).split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert str(whole) == repr(whole)


def test_a_record_says_what_was_captured_and_the_most_telling_numbers(record) -> None:
    blocks = tuple(
        replace(block, stats=FrozenMapping({**block.stats, "spectral_share": share}))
        for block, share in zip(record.blocks, (0.5, 0.125, 0.75, None), strict=True)
    )
    text = repr(replace(record, blocks=blocks))
    head, *rest = text.split("\n")
    assert head == (
        "CaptureRecord of CascadedFNOGenerator: 656,002 parameters, weights from the checkpoint, step 1000"
    )
    assert rest[:5] == [
        "4 samples in batches of 2, cpu, float32",
        "measured: 13 modules (15 outputs), 4 blocks",
        "notes: record.warnings (1), record.skipped (1), record.not_fired (1)",
        "  warning: dead | is <zero> everywhere",
        "findings: not diagnosed; ft.diagnose(record) looks for faults",
    ]
    table = {line.split()[0]: line.split()[1:] for line in rest[7:-2]}
    assert table["rms"] == ["1.01", "0.106", "0", "dead", "1e+04", "narrow"]
    assert table["sample_variation"] == ["0.9", "0.9", "0.9", "everywhere"]
    assert table["spectral_share"] == ["0.125", "fno_blocks.1", "0.75", "fno_blocks.10"]
    assert table["nan_count"] == ["1", "1", "1", "everywhere"]
    epoch = replace(record, summary=freeze_mapping({**record.summary, "weights": None, "step_kind": "epoch"}))
    assert repr(epoch).split("\n")[0].endswith(": 656,002 parameters, epoch 1000")


def test_counts_of_non_finite_values_are_told_only_where_there_are_some(record, examples) -> None:
    whole = [
        replace(side, stats=FrozenMapping({**side.stats, "nan_count": 0}))
        for side in (record.input, record.output)
    ]
    clean = examples.with_stats(replace(record, input=whole[0], output=whole[1]), "lifter", nan_count=0)
    assert "nan_count" in repr(clean)
    for module in record.modules:
        clean = examples.with_stats(clean, module.name, nan_count=0)
    assert "nan_count" not in repr(clean)
    assert "inf_count" in repr(clean)


def test_causes_are_counted_and_the_worst_come_first(record, examples) -> None:
    found = examples.add_findings(record)
    lines = repr(replace(found, findings=found.findings[::-1])).split("\n")
    start = lines.index("findings: 1 error, 1 warning, 1 note")
    assert [line.split(":")[0] for line in lines[start + 1 : start + 4]] == ["  error", "  warning", "  note"]
    lines = repr(found).split("\n")
    # The warning follows from the error.
    start = lines.index("findings: 1 error, 1 note")
    assert lines[start + 1] == f"  {found.findings[0]}"
    assert "findings: nothing found" in repr(replace(record, findings=()))
    assert "  and 197 more in record.findings" in repr(deep(record, 200))


def test_an_odd_record_is_shown_as_far_as_it_goes(record) -> None:
    empty = replace(
        record,
        summary=FrozenMapping(),
        modules=(),
        blocks=(),
        input=None,
        output=None,
        outputs=(),
        warnings=(),
    )
    assert repr(empty).split("\n")[0] == "CaptureRecord of a model: step unknown"
    odd = {
        "n_parameters": "many",
        "n_samples": 3,
        "loss": "low",
        "weights": 7,
        "device": 0,
        "architecture": 1.5,
    }
    stats = FrozenMapping(
        {"rms": "text", "nan_count": float("nan"), "sample_variation": 10**400, "gain": True}
    )
    modules = tuple(replace(module, stats=stats) for module in record.modules)
    text = repr(replace(empty, summary=FrozenMapping(odd), modules=modules, input=modules[0]))
    assert "many parameters, weights 7" in text
    assert "3 samples, loss low" in text
    assert "rms" not in text


def test_each_entry_is_one_line(record) -> None:
    assert repr(record.input) == "<TensorRecord: 4×2×8×8 float32, rms 1.01>"
    assert repr(record.outputs[1]) == "<TensorRecord 'amp': 4×2×8×8 float32, rms 0.2>"
    assert repr(record.module("shared", 1)) == (
        "<ModuleRecord 'shared@1': norm, GroupNorm, 4×2×8×8 float32, rms 3.85>"
    )
    assert repr(record.block("spec_encoder#0")) == (
        "<BlockRecord 'spec_encoder#0': spectral_share undefined, update_ratio 0.4, gain 1.4>"
    )
    assert repr(record.parameters[0]) == "<ParameterRecord 'lifter.weight': 2×2×3×3 float32, moved 0.25>"
    assert repr(record.parameters[2]) == "<ParameterRecord 'gate': scalar float32, moved undefined>"
    odd = replace(record.module("lifter"), name="a\nb", class_name="c\nd", shape=(), stats=FrozenMapping())
    assert repr(odd) == "<ModuleRecord 'a\\nb': lifting, c?d, scalar float32, rms undefined>"


def test_a_record_knows_its_stage_and_a_validation_has_a_label_of_its_own(record) -> None:
    assert (record.stage, record.label) == ("train", "step1000")
    validation = replace(record, training=freeze_mapping({"stage": "val"}))
    assert (validation.stage, validation.label) == ("val", "step1000.val")
    assert replace(record, training=freeze_mapping({"stage": 3})).stage is None


def test_records_are_equal_by_their_fields(record, examples) -> None:
    assert record == examples.example()
    changed = examples.with_stats(record, "fno_blocks.1", rms=1.0000001)
    assert changed != examples.with_stats(record, "fno_blocks.1", rms=1.0)
    assert record.module("shared") != record.module("shared", 1)


# --- by name


def test_a_module_is_found_by_name_or_by_the_place_that_tables_show(record) -> None:
    for module in record.modules:
        assert record.module(module.name, module.call, module.item) is module
        assert record.module(module.place) is module
    whole = replace(
        record, modules=(replace(record.modules[0], name=""),), blocks=(replace(record.blocks[0], name=""),)
    )
    assert record.module("shared").call == 0
    assert whole.module("") is whole.module("(model)") is whole.modules[0]
    assert whole.block("") is whole.block("(model)") is whole.blocks[0]


def test_a_name_that_reads_like_a_place_comes_first(record) -> None:
    named = replace(record.module("lifter"), name="shared@1")
    both = replace(record, modules=(*record.modules, named))
    assert both.module("shared@1") is named
    assert both.module("shared", 1).name == "shared"
    # A call is never found under the name of another module.
    with pytest.raises(KeyError, match="'lifter@1' in this record"):
        replace(record, modules=(record.module("lifter"), replace(named, name="lifter@1"))).module(
            "lifter", 1
        )


def test_a_block_is_found_by_name_or_place(record) -> None:
    later = replace(record.block("fno_blocks.1"), call=1)
    both = replace(record, blocks=(*record.blocks, later))
    assert both.block("fno_blocks.1") is record.blocks[1]
    assert both.block("fno_blocks.1", 1) is both.block("fno_blocks.1@1") is later


@pytest.mark.parametrize(
    ("kind", "arguments", "place", "hint"),
    [
        ("module", ("fno_blocks.0.spectrl",), "fno_blocks.0.spectrl", "similar: fno_blocks.0.spectral, "),
        ("module", ("fno_blocks/0/spectral",), "fno_blocks/0/spectral", "similar: fno_blocks.0.spectral, "),
        ("module", ("shared", 3), "shared@3", "recorded of this module: shared, shared@1"),
        ("module", ("heads",), "heads", "recorded of this module: heads[0], heads[1]"),
        ("module", ("heads", 0, "amp"), "heads[amp]", "recorded of this module: heads[0], heads[1]"),
        ("module", ("input",), "input", "the input of the model is `record.input`"),
        ("module", ("unused",), "unused", "it was not measured: its forward was not called"),
        ("module", ("codes",), "codes", "it was not measured: int64 values are not measured"),
        ("block", ("fno_blocks.2",), "fno_blocks.2", "similar: fno_blocks.1, fno_blocks.0, "),
        ("block", ("fno_blocks.1", 2), "fno_blocks.1@2", "recorded of this block: fno_blocks.1"),
    ],
)
def test_a_name_that_is_not_there_is_a_readable_key_error(record, kind, arguments, place, hint) -> None:
    with pytest.raises(KeyError) as caught:
        getattr(record, kind)(*arguments)
    assert str(caught.value).startswith(f"no {kind} {place!r} in this record; {hint}")
    assert isinstance(caught.value, ft.TelemetryError)


def test_a_record_without_blocks_says_so_and_a_long_list_is_cut(record) -> None:
    with pytest.raises(KeyError, match=r"no block 'lifter' in this record; it has no blocks$"):
        replace(record, blocks=()).block("lifter")
    calls = tuple(replace(record.module("shared"), call=call) for call in range(50))
    with pytest.raises(KeyError, match=r": shared, shared@1, shared@2, shared@3, shared@4 and 45 more$"):
        replace(record, modules=calls).module("shared", 50)


# --- as a table


def test_rows_are_flat_in_execution_order_and_have_the_same_keys(record) -> None:
    rows = replace(record, modules=record.modules[::-1]).rows()
    assert [(row["name"], row["call"], row["item"]) for row in rows] == [
        (module.name, module.call, module.item) for module in record.modules
    ]
    for row, module in zip(rows, record.modules, strict=True):
        assert list(row) == list(rows[0])
        assert list(row)[:8] == ["name", "call", "item", "role", "class", "shape", "dtype", "step"]
        assert {name: row[name] for name in module.stats} == dict(module.stats)
        assert (row["class"], row["shape"], row["step"]) == (module.class_name, module.shape, 1000)
    assert replace(record, modules=()).rows() == []


def test_a_number_that_a_module_does_not_have_is_none_in_its_row(record, examples) -> None:
    rows = examples.with_stats(record, "lifter", grad_norm=0.5, shape=3.0).rows()
    assert [row["grad_norm"] for row in rows] == [0.5, *[None] * (len(rows) - 1)]
    # A statistic that is called like a column of our own does not replace it.
    assert (rows[0]["shape"], rows[0]["stats.shape"]) == ((4, 2, 8, 8), 3.0)
    assert next(row for row in rows if row["name"] == "dead")["tail_ratio"] is None


def test_a_number_that_is_not_there_is_a_key_error_with_near_names(record):
    stats = record.modules[0].stats
    with pytest.raises(KeyError) as caught:
        stats["low_freq_fraction"]
    assert str(caught.value).startswith("no 'low_freq_fraction' here. Did you mean low_frequency_fraction")
    assert isinstance(caught.value, ft.TelemetryError)
    assert stats.get("low_freq_fraction") is None
    assert stats.get("low_freq_fraction", 3.0) == 3.0
    assert "low_freq_fraction" not in stats
    assert stats.get("rms") == stats["rms"]


@pytest.mark.parametrize("odd", ["a text", [1], 3, None])
def test_a_provenance_of_other_values_leaves_step_and_digest_unknown(record, odd):
    provenance = freeze_mapping({"checkpoint": odd, "input": odd})
    bare = replace(
        record, summary=freeze_mapping({**record.summary, "checkpoint_step": None}), provenance=provenance
    )
    assert (bare.label, bare.input_digest, bare.facts_about("checkpoint")) == ("untrained", None, {})
    named = replace(bare, provenance=freeze_mapping({"checkpoint": {"name": odd}}))
    assert named.label == ("untrained" if odd is None else str(freeze_mapping({"x": odd})["x"]))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("fno_blocks.1.local", "fno_blocks.1.local"),
        ("fno_blocks@1", "fno_blocks (2nd call)"),
        ("lifting#gelu", "the gelu of lifting"),
        ("#gelu@1", "the 2nd gelu of the model"),
        ("fno_blocks#gelu@2", "the 3rd gelu of fno_blocks"),
        ("net#relu@10", "the 11th relu of net"),
        ("net#1", "block 1 of net"),
        ("(model)", "(model)"),
        ("head@1[amp]", "head (2nd call)[amp]"),
        ("input", "input"),
    ],
)
def test_a_place_that_is_more_than_a_path_is_spelled_in_words(place, words):
    assert spell_place(place) == words


def test_bands_are_pooled_by_their_energies(record):
    pooled = record.accuracy.bands.pool((0.0, 0.5))
    assert pooled.band_edges == (0.0, 0.5, 0.75)
    assert (pooled.target, pooled.output, pooled.error) == ((16, 5, 0), (9, 4.25, 0.5), (1, 0.75, 0.5))
    assert pooled.band_error == (0.25, pytest.approx((0.75 / 5) ** 0.5), None)
    assert pooled.spectrum_ratio == (0.5625, 0.85, None)
    assert pooled.band_coherence == (1, pytest.approx(8.5 / 2 / (5 * 4.25) ** 0.5), None)
    assert pooled.sizes == record.accuracy.bands.sizes


def test_an_accuracy_prints_in_one_line(record):
    line = repr(record.accuracy)
    assert line == (
        "<AccuracyRecord: relative_l2 0.125, error_to_mean_predictor undefined, output_to_target_rms "
        "undefined, effective_resolution undefined>"
    )
