"""The JSON Schema that is shipped: what it takes, and what it and reading refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fno_telemetry import report
from fno_telemetry.errors import ReportError
from fno_telemetry.records import SCHEMA, CaptureRecord
from fno_telemetry.testing import example_record


@pytest.fixture(scope="module")
def record() -> CaptureRecord:
    return example_record.add_findings(example_record.example())


@pytest.fixture
def document(record: CaptureRecord) -> dict[str, Any]:
    return report.as_document(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


Change = Callable[[dict[str, Any]], object]

# Each makes a document wrong. The second says whether reading refuses it too: not what other versions wrote.
WRONG: dict[str, tuple[Change, bool]] = {
    "no modules": (lambda d: d.pop("modules"), True),
    "no summary": (lambda d: d.pop("summary"), True),
    "no provenance": (lambda d: d.pop("provenance"), False),
    "another's schema": (lambda d: d.update(schema="smdebug/1"), True),
    "schema a number": (lambda d: d.update(schema=1), True),
    "modules a mapping": (lambda d: d.update(modules={"a": 1}), True),
    "modules text": (lambda d: d.update(modules="lifter"), True),
    "summary a list": (lambda d: d.update(summary=[]), True),
    "n_samples text": (lambda d: d["summary"].update(n_samples="4"), True),
    "n_samples negative": (lambda d: d["summary"].update(n_samples=-1), True),
    "layers of numbers": (lambda d: d["layers"].update({"a/b": 1}), True),
    "layers of text": (lambda d: d["layers"].update({"a/b": ["x"]}), True),
    "a layer without statistic": (lambda d: d["layers"].update({"a": [1]}), True),
    "a key of nobody": (lambda d: d.update(extra=1), False),
    "a module without name": (lambda d: d["modules"][0].pop("name"), True),
    "a module without stats": (lambda d: d["modules"][0].pop("stats"), True),
    "a module with a key of nobody": (lambda d: d["modules"][0].update(extra=1), False),
    "a role of nobody": (lambda d: d["modules"][0].update(role="attention"), True),
    "a call before the first": (lambda d: d["modules"][0].update(call=-1), True),
    "an item that is a number": (lambda d: d["modules"][0].update(item=0), True),
    "a shape of text": (lambda d: d["modules"][0].update(shape=["4"]), True),
    "a statistic that is text": (lambda d: d["modules"][0]["stats"].update(rms="1"), True),
    "a statistic that is a list": (lambda d: d["modules"][0]["stats"].update(mine=[1]), True),
    "a statistic that is true": (lambda d: d["modules"][0]["stats"].update(mine=True), True),
    "a negative rms": (lambda d: d["modules"][0]["stats"].update(rms=-1.0), True),
    "a count with a fraction": (lambda d: d["modules"][0]["stats"].update(count=1.5), True),
    "a share above 1": (lambda d: d["modules"][0]["stats"].update(zero_fraction=1.5), True),
    "a reason that is null": (lambda d: d["modules"][0]["reasons"].update(rms=None), True),
    "a histogram of numbers": (lambda d: d["modules"][0].update(histogram=[1, 2]), True),
    "a histogram without counts": (lambda d: d["modules"][0]["histogram"].pop("counts"), True),
    "a histogram with more": (lambda d: d["modules"][0]["histogram"].update(bins=3), False),
    "a count below none": (lambda d: d["modules"][0]["histogram"].update(below=-1), True),
    "a spectrum without bands": (lambda d: d["modules"][0]["spectrum"].pop("bands"), True),
    "a sketch without error": (lambda d: d["modules"][0]["sketch"].pop("relative_error"), True),
    "a block with a role": (lambda d: d["blocks"][0].update(role="block"), False),
    "a block without branches": (lambda d: d["blocks"][0].pop("spectral"), True),
    "a finding without evidence": (lambda d: d["findings"][0].pop("evidence"), True),
    "a finding of no severity": (lambda d: d["findings"][0].update(severity="fatal"), True),
    "findings that are a number": (lambda d: d.update(findings=3), True),
    "a step of another kind": (lambda d: d["summary"].update(step_kind="batch"), True),
    "a step beyond 64 bits": (lambda d: d["summary"].update(checkpoint_step=2**63), True),
    "a step before the first": (lambda d: d["summary"].update(checkpoint_step=-1), True),
    "an axis before the first": (lambda d: d["modules"][0].update(spatial_axes=[-1]), True),
    "a text among counts": (lambda d: d["modules"][0]["log_histogram"]["counts"].append("x"), True),
    "a count that is true": (lambda d: d["modules"][0]["histogram"]["counts"].append(True), True),
    "a band below none": (lambda d: d["modules"][0]["spectrum"]["bands"].append(-0.5), True),
    "a row of bands that is a number": (lambda d: d["output"]["spectrum"].update(axis_bands=[1]), True),
    "an input that is a number": (lambda d: d.update(input=3), True),
    "an input with a name": (lambda d: d["input"].update(name="input"), False),
    "rms of channels that are a number": (lambda d: d["input"].update(channel_rms=1.5), True),
    "rms of a channel that is a text": (lambda d: d["input"].update(channel_rms=[0.5, "1"]), True),
    "extremes of processes that are numbers": (lambda d: d["input"].update(process_extremes=[1.5]), True),
    "extremes of a process that are a text": (
        lambda d: d["input"].update(process_extremes=[[0.5, "1"]]),
        True,
    ),
    "outputs with null": (lambda d: d.update(outputs=[None]), True),
    "a parameter without name": (lambda d: d["parameters"][0].pop("name"), True),
    "a parameter of another shape": (lambda d: d["parameters"][0].update(shape=[-1]), True),
    "a parameter with a key of nobody": (lambda d: d["parameters"][0].update(extra=1), False),
    "a parameter that moved by a text": (lambda d: d["parameters"][0]["stats"].update(moved="far"), True),
    "a parameter that moved by less than nothing": (
        lambda d: d["parameters"][0]["stats"].update(moved=-0.5),
        True,
    ),
    "parameters by name": (lambda d: d.update(parameters={"lifter.weight": 1}), True),
    "an accuracy that is a number": (lambda d: d.update(accuracy=0.5), True),
    "an accuracy without reasons": (lambda d: d["accuracy"].pop("reasons"), True),
    "an energy below none": (lambda d: d["accuracy"]["bands"].update(error=[-0.5]), True),
    "a ratio of a band that is a text": (
        lambda d: d["accuracy"]["bands"].update(spectrum_ratio=["half"]),
        True,
    ),
    "a ratio of a band below none": (
        lambda d: d["accuracy"]["bands"].update(spectrum_ratio=[None, -0.5]),
        True,
    ),
    "bands without an energy": (lambda d: d["accuracy"]["bands"].pop("target"), True),
    "a channel that is a text": (lambda d: d["accuracy"].update(channels=["1"]), True),
    "an error below none": (lambda d: d["accuracy"]["stats"].update(relative_l2=-0.5), True),
    "a stage of nobody": (lambda d: d["training"].update(stage="test"), True),
    "no forward": (lambda d: d["training"].update(forwards=0), True),
    "fewer than no records dropped": (lambda d: d["training"].update(dropped=-1), True),
    "a learning rate that is a text": (lambda d: d["training"].update(learning_rates=["1"]), True),
    "a skipped name without reason": (lambda d: d.update(skipped=[{"name": "a"}]), True),
    "a warning that is a number": (lambda d: d.update(warnings=[1]), True),
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = report.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_what_is_written_satisfies_the_schema(validator, record, path):
    report.write(record, path)
    assert list(validator.iter_errors(json.loads(path.read_text()))) == []


def test_the_schema_is_of_the_number_that_is_written(validator):
    assert validator.schema["properties"]["schema"]["const"] == f"fno-telemetry/{SCHEMA}"


def test_the_schema_knows_every_key_that_is_written(validator, document):
    definitions = validator.schema["$defs"]
    # Findings are there when somebody looked for them; older reports have no list of inputs.
    where_known = {"parameters", "target", "accuracy", "training"}
    assert set(document) == {*validator.schema["required"], "findings", "inputs", *where_known}
    assert set(document["parameters"][0]) == set(definitions["parameter"]["properties"])
    assert set(document["accuracy"]) == set(definitions["accuracy"]["properties"])
    of_training = set(validator.schema["properties"]["training"]["properties"])
    assert set(document["training"]) == of_training - {"nonfinite"}
    assert set(document["findings"][0]) == set(definitions["finding"]["properties"])
    tensor, module = definitions["tensor_keys"]["properties"], definitions["module"]["properties"]
    assert set(document["input"]) == set(tensor)
    assert set(document["modules"][0]) == set(tensor) | set(module)
    for kind in ("histogram", "log_histogram", "spectrum", "sketch"):
        assert set(document["modules"][0][kind]) == set(definitions[kind]["properties"])
    assert set(document["blocks"][0]) == set(definitions["block"]["properties"])


@pytest.mark.parametrize("key", ["stats", "reasons", "summary", "provenance"])
def test_the_schema_is_open_where_plugins_add(validator, document, key):
    value = "because" if key == "reasons" else 0.5
    target = document if key in document else document["modules"][0]
    target[key]["attention_entropy"] = value
    assert validator.is_valid(document)


def test_the_schema_takes_what_is_made_wrong_below(validator, document):
    assert validator.is_valid(document)


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses(validator, document, name):
    WRONG[name][0](document)
    assert not validator.is_valid(document)


@pytest.mark.parametrize("name", [name for name, (_, found) in WRONG.items() if found])
def test_reading_refuses(document, path, name):
    WRONG[name][0](document)
    path.write_text(json.dumps(document))
    with pytest.raises(ReportError) as raised:
        report.load_report(path)
    assert str(raised.value).startswith(f"{path}: ")
