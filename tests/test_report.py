import contextlib
import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fno_telemetry import files, report
from fno_telemetry.errors import ReportError
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import SCHEMA, CaptureRecord, FrozenMapping, freeze_mapping
from fno_telemetry.testing import example_record


@pytest.fixture(scope="module")
def record() -> CaptureRecord:
    return example_record.example()


@pytest.fixture
def document(record: CaptureRecord) -> dict[str, Any]:
    return report.as_document(record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.json"


def strictly_read(path: Path) -> Any:
    """Read JSON as a browser does: no NaN, no Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# --- round trip


def test_a_report_read_back_equals_the_record(record, path):
    report.write(record, path)
    assert record == report.load_report(path)


def test_findings_are_read_back_and_a_report_that_nobody_diagnosed_has_none(record, path):
    diagnosed = example_record.add_findings(record)
    report.write(diagnosed, path)
    assert report.load_report(path) == diagnosed
    report.write(record, path)
    assert "findings" not in strictly_read(path)
    assert report.load_report(path).findings is None


def test_what_only_a_training_knows_is_read_back_and_is_not_in_the_report_of_a_capture(record, path):
    report.write(record, path)
    read = report.load_report(path)
    assert (read.parameters, read.accuracy, read.training) == (
        record.parameters,
        record.accuracy,
        record.training,
    )
    assert (read.stage, read.training["learning_rates"]) == ("train", (0.001,))
    captured = replace(record, parameters=(), target=None, accuracy=None, training=FrozenMapping())
    report.write(captured, path)
    assert not {"parameters", "target", "accuracy", "training"} & strictly_read(path).keys()
    assert report.load_report(path) == captured
    assert captured.stage is None


def test_a_record_without_input_output_or_modules_is_read_back_too(path):
    empty = CaptureRecord(
        summary=freeze_mapping({}),
        layers=FrozenMapping({}),
        modules=(),
        blocks=(),
        input=None,
        output=None,
        outputs=(),
    )
    report.write(empty, path)
    assert empty == report.load_report(path)


def test_numbers_keep_every_digit_and_integers_stay_integers(record, path):
    exact = example_record.with_stats(record, "lifter", count=2**60 + 1, mean=0.1 + 0.2, rms=5e-324)
    report.write(exact, path)
    stats = report.load_report(path).module("lifter").stats
    assert (stats["count"], stats["mean"], stats["rms"]) == (2**60 + 1, 0.1 + 0.2, 5e-324)
    assert isinstance(stats["count"], int)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_float_survives(value):
    [read] = json.loads(report.dumps({"values": [value]}))["values"]
    assert read == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_become_null(record, path, value):
    broken = example_record.with_stats(record, "lifter", rms=value)
    broken = replace(
        broken,
        layers=FrozenMapping({"lifter/mean": (1.0, value)}),
        summary=freeze_mapping({**broken.summary, "nested": {"list": [value]}}),
    )
    report.write(broken, path)
    read = strictly_read(path)
    assert read["layers"]["lifter/mean"] == [1.0, None]
    assert read["summary"]["nested"] == {"list": [None]}
    assert report.load_report(path).module("lifter").stats["rms"] is None


def test_strict_json_is_refused_a_number_that_it_does_not_have():
    with pytest.raises(ReportError, match="a number that JSON does not have"):
        report.dumps({"value": float("nan")})


@pytest.mark.parametrize(
    "text", ["Übung 1.npz", "数据", "\u2028", 'quote" and \\', "tab\tand\nline", "not utf-8: \udcff"]
)
def test_any_text_survives_even_file_names_that_are_not_utf_8(record, path, text):
    named = replace(record, provenance=freeze_mapping({"input": text}), warnings=(text,))
    report.write(named, path)
    assert named == report.load_report(path)
    assert strictly_read(path)["provenance"] == {"input": text}


def test_what_a_report_cannot_hold_is_an_error_and_leaves_nothing(record, path):
    with pytest.raises(ReportError, match="a report cannot hold a PosixPath"):
        report.write(replace(record, provenance=freeze_mapping({"path": Path("x")})), path)
    assert list(path.parent.iterdir()) == []


# --- whole or not at all


@pytest.fixture
def written(record, path) -> bytes:
    report.write(record, path)
    return path.read_bytes()


def test_the_folder_is_made(record, tmp_path):
    report.write(record, tmp_path / "new" / "folder" / "my report.json")
    assert record == report.load_report(tmp_path / "new" / "folder" / "my report.json")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interrupt_in_the_middle_leaves_the_old_file_and_no_other(path, written, error):
    with pytest.raises(error), files.whole_file(path) as part:
        part.write_text('{"schema": ')
        raise error
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_no_other(path, written):
    expected = f"{path}: cannot be written: No space left"
    with pytest.raises(ReportError, match=expected), files.whole_file(path) as part:
        part.write_text('{"schema": ')
        raise OSError(28, "No space left on device")
    assert path.read_bytes() == written
    assert list(path.parent.iterdir()) == [path]


def test_while_it_is_being_written_the_old_file_is_whole(path, written):
    with files.whole_file(path) as part:
        part.write_text("new")
        assert path.read_bytes() == written
    assert path.read_text() == "new"


def test_who_is_reading_the_old_file_reads_it_whole(record, path, written):
    with path.open("rb") as reader:
        report.write(example_record.at_step(record, 2000), path)
        assert reader.read() == written
    assert report.load_report(path).step == 2000


def test_a_report_has_the_permissions_of_any_new_file(record, path):
    report.write(record, path)
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(plain.stat().st_mode) == stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def read_only_folder() -> Iterator[Path]:
    """Yield a folder in which nobody but the superuser may write, and be somebody else for a while."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        folder.chmod(0o555)
        if user == 0:
            try:
                os.seteuid(65534)
            except OSError:
                pytest.skip("a superuser who cannot be anybody else is never refused")
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_read_only_folder_is_an_error_in_one_line(record):
    with read_only_folder() as folder:
        assert "permission" in files.why_unwritable(folder)
        assert "permission" in files.why_unwritable(folder / "new" / "folder")
        for target in (folder / "report.json", folder / "new" / "report.json"):
            with pytest.raises(ReportError) as raised:
                report.write(record, target)
            assert str(raised.value) == f"{target}: cannot be written: Permission denied"


def test_a_path_through_a_file_is_an_error_in_one_line(record, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ReportError, match=r"file/report\.json: cannot be written: "):
        report.write(record, tmp_path / "file" / "report.json")
    assert files.why_unwritable(tmp_path / "file" / "deeper") == f"{tmp_path}/file is not a folder"
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing(record, path):
    path.mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        report.write(record, path)
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_can_be_made_is_writable_and_asking_makes_nothing(tmp_path):
    assert files.why_unwritable(tmp_path / "new" / "folder") is None
    assert list(tmp_path.iterdir()) == []


# --- what is refused


def test_a_newer_schema_is_refused_with_what_to_do(path, document):
    path.write_text(json.dumps(document | {"schema": f"fno-telemetry/{SCHEMA + 1}"}))
    with pytest.raises(ReportError, match=r"newer version \(schema 2, this one reads to 1\): update"):
        report.load_report(path)


def test_an_older_schema_is_read(path, document, record):
    path.write_text(json.dumps(document | {"schema": "fno-telemetry/0"}))
    assert replace(record, schema=0) == report.load_report(path)


def test_shares_that_earlier_versions_did_not_write_are_one(path, document, record):
    for part, names in (("sketch", ("share", "rank_error")), ("spectrum", ("share", "share_error"))):
        for name in names:
            del document["modules"][0][part][name]
    path.write_text(json.dumps(document))
    assert report.load_report(path) == record


def test_keys_that_are_not_known_do_not_matter(path, document, record):
    document["later"] = {"any": "thing"}
    document["modules"][0]["later"] = 1
    document["quantities"] = [{"name": "peak", "title": "largest", "later": 1}]
    path.write_text(json.dumps(document))
    quantities = (Quantity(name="peak", title="largest"),)
    assert replace(record, quantities=quantities) == report.load_report(path)


UNFIT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "two entries for a module": (lambda d: d["modules"].append(d["modules"][0]), r"modules has \S+ 2 times"),
    "an axis that a further input lacks": (
        lambda d: d["inputs"].append({**d["input"], "spatial_axes": [9]}),
        "sizes in spatial_axes of an input or output do not fit",
    ),
    "two entries for a block": (lambda d: d["blocks"].append(d["blocks"][0]), r"blocks has \S+ 2 times"),
    "two entries for a parameter": (
        lambda d: d["parameters"].append(d["parameters"][0]),
        r"parameters has lifter\.weight 2 times",
    ),
    "a name of a number of a parameter with a line break": (
        lambda d: d["parameters"][0]["stats"].update({"a\nb": 1}),
        "the name of a quantity",
    ),
    "a name of a number of the accuracy with a line break": (
        lambda d: d["accuracy"]["stats"].update({"a\nb": 1}),
        "the name of a quantity",
    ),
    "an axis that the shape lacks": (
        lambda d: d["input"].update(spatial_axes=[9]),
        "spatial_axes of an input",
    ),
    "an axis that the target lacks": (
        lambda d: d["target"].update(spatial_axes=[9]),
        "spatial_axes of the target",
    ),
    "a histogram with an edge too many": (
        lambda d: d["modules"][0]["histogram"]["edges"].append(1e9),
        "histogram of lifter",
    ),
    "edges in no order": (lambda d: d["output"]["log_histogram"]["edges"].reverse(), "log_histogram of an"),
    "a spectrum with an axis too many": (
        lambda d: d["output"]["spectrum"]["sizes"].append(4),
        "spectrum of an input or output",
    ),
    "a spectrum with a short row": (
        lambda d: d["output"]["spectrum"]["axis_bands"][0].pop(),
        "spectrum of an input or output",
    ),
    "bands of the accuracy with one too few": (
        lambda d: d["accuracy"]["bands"]["band_error"].pop(),
        "sizes in bands of the accuracy",
    ),
    "bands of the accuracy in no order": (
        lambda d: d["accuracy"]["bands"]["band_edges"].reverse(),
        "sizes in bands of the accuracy",
    ),
    "a name of a statistic with a line break": (
        lambda d: d["modules"][2]["stats"].update({"a\nb": 1}),
        "the name of a quantity",
    ),
    "provenance nested a hundred deep": (
        lambda d: d["provenance"].update(x=json.loads("[" * 100 + "]" * 100)),
        r"provenance\.x is a list of 1; .* nested deeper than 64",
    ),
    "an unknown key nested a hundred deep": (
        lambda d: d["modules"][0].update(x=json.loads('{"a":' * 100 + "1" + "}" * 100)),
        r"modules\[0\]\.x is an object; .* nested deeper than 64",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_values_that_do_not_fit_together_are_refused_with_the_place(path, document, name):
    change, message = UNFIT[name]
    document = json.loads(json.dumps(document))  # in which no two parts are the same object
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ReportError, match=message):
        report.load_report(path)
    _assert_one_line(path)


@pytest.mark.parametrize("digits", [31, 400, 5000])
def test_a_whole_number_of_many_digits_is_refused(path, written, digits):
    path.write_text(written.decode().replace('"count": ', f'"count": {"7" * digits}', 1))
    with pytest.raises(ReportError, match=r"a whole number has \d+ digits"):
        report.load_report(path)
    _assert_one_line(path)


def test_a_schema_number_of_many_digits_is_refused(path, document):
    path.write_text(json.dumps(document | {"schema": f"fno-telemetry/{'9' * 5000}"}))
    _assert_one_line(path)


def test_a_file_of_brackets_alone_is_refused_before_it_fills_the_memory(path):
    path.write_text('{"schema": "fno-telemetry/1", "x": [' + "[]," * 2**21 + "[]]}")
    with pytest.raises(ReportError, match="too many lists, objects and values"):
        report.load_report(path)


def test_a_file_without_end_is_refused_by_its_size(path):
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ReportError, match=r"1,099,511,627,776 bytes; expected the file of one report"):
        report.load_report(path)


def test_a_byte_order_mark_does_not_matter(record, path, written):
    path.write_bytes(b"\xef\xbb\xbf" + written)
    assert record == report.load_report(path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = Path("report.json")
    with contextlib.ExitStack() as closing:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            closing.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo("pipe")
            path.symlink_to("pipe")
        _assert_one_line(path)
        with pytest.raises(ReportError, match=f"cannot be written: a .*{kind.split()[-1]} is there"):
            report.write(example_record.example(), path)


@pytest.mark.parametrize(
    "wrong", [{"name": "two\nlines"}, {"rank": "a"}, {"rises": "\x1b[2J"}, {"worse": None}]
)
def test_a_quantity_that_no_view_can_show_is_refused_with_the_file(path, document, wrong):
    document["quantities"] = [{"name": "peak", "title": "largest"} | wrong]
    path.write_text(json.dumps(document))
    with pytest.raises(
        ReportError, match=r"report\.json: not a report of schema 1: the .*quantity .*expected"
    ):
        report.load_report(path)


WRONG_TEXT = {
    "nothing": "",
    "truncated": '{"schema": "fno-telemetry/1", "summary": {',
    "no JSON": "PK\x03\x04",
    "a list": "[]",
    "null": "null",
    "another's": '{"version": 3}',
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("text", WRONG_TEXT.values(), ids=WRONG_TEXT)
def test_a_file_that_is_no_report_is_an_error_in_one_line_that_names_it(path, text):
    path.write_text(text)
    _assert_one_line(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_json_or_float64_does_not_have_is_refused(path, written, number):
    whole = written.decode()
    path.write_text(whole.replace('"rms": 0', f'"rms": {number}', 1))
    assert number in path.read_text()
    _assert_one_line(path)


@pytest.mark.parametrize("data", [b"\xff\xfe{\x00}\x00", b"\x80\x04\x95", b"\xef\xbb\xbf{}"])
def test_a_file_that_is_not_utf_8_text_is_an_error_in_one_line(path, data):
    path.write_bytes(data)
    _assert_one_line(path)


def test_a_missing_file_or_a_folder_is_an_error_in_one_line(path):
    _assert_one_line(path)
    path.mkdir()
    _assert_one_line(path)


def test_every_truncation_of_a_report_is_refused(path, written):
    for length in range(0, len(written) - 2, len(written) // 50):
        path.write_bytes(written[:length])
        with pytest.raises(ReportError):
            report.load_report(path)


def _assert_one_line(path: Path) -> None:
    with pytest.raises(ReportError) as raised:
        report.load_report(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert len(str(raised.value)) < len(str(path)) + 200
