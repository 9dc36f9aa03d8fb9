"""Texts of a stranger's report in dashboards: keys, tables, texts and settings, without hidden characters."""

from typing import Any

import pytest

from fno_telemetry import keys, report
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.contract import RunContext
from fno_telemetry.sinks.tensorboard.sink import TensorBoard
from fno_telemetry.sinks.wandb import findings_table, rows
from fno_telemetry.sinks.wandb.layers_table import LayersTable
from support.hostile_text import EVIL, make_evil_reports, shows_only_what_is_seen


@pytest.fixture(scope="module")
def evil() -> list[CaptureRecord]:
    return [report.as_record(document) for document in make_evil_reports()]


def texts(value: Any) -> list[str]:
    """Return all texts in a value, keys among them."""
    if isinstance(value, dict):
        return [text for part in (*value, *value.values()) for text in texts(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


def test_every_key_is_printable_and_still_tells_names_apart(evil):
    found = [key for record in evil for key in dict(keys.numbers(record))]
    assert any("evil" in key for key in found)
    assert [key for key in found if not shows_only_what_is_seen(key) or "\n" in key] == []
    names = [f"a{letter}b" for letter in "\x18\u180e\u18ff\u00ad\xa0\u3164\ud800\ud80c%0.E/"]
    names += ["a%18b", "a%E1%A0%8Eb", "a%180Eb", "a\x180Eb"]
    assert len({keys.place(name) for name in names}) == len(names)


def test_tables_alerts_and_settings_of_wandb_are_printable(evil):
    layers = LayersTable()
    for record in evil:
        layers.add(record)
    found = [
        *(findings_table.table_rows(record) for record in evil),
        *(vars(findings_table.alert(record)) for record in evil if findings_table.alert(record)),
        *([row["layer"] for row in rows.depth_rows(record, "full")] for record in evil),
        *([*rows.row(record, "full").scalars] for record in evil),
        *(rows.config(record, of_experiment) for record in evil for of_experiment in (True, False)),
        list(layers.take().rows),
    ]
    assert all(texts(each) for each in found)
    for text in texts(found):
        assert shows_only_what_is_seen(text), ascii(text)


def test_tags_and_texts_of_tensorboard_are_printable(evil, tmp_path, read_events):
    sink = TensorBoard(detail="full")
    sink.open(RunContext(tmp_path, experiment=EVIL.replace("\0", ""), series=True))
    for record in evil:
        sink.write(record)
    sink.close(ok=True)
    [folder] = (tmp_path / "tensorboard").iterdir()
    assert shows_only_what_is_seen(folder.name)
    events = read_events(folder)
    assert any("evil" in tag for tag in events)
    shown = [
        text.decode()
        for tag, points in events.items()
        if tag.startswith(("0_overview", "report", "findings/"))
        for _, value in points
        for text in getattr(value, "string_val", ())
    ]
    assert any("evil" in text for text in shown)
    for text in (*events, *shown):
        assert shows_only_what_is_seen(text), ascii(text)
