"""Reads the transaction log of a W&B run back, which is all that an offline run is."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

HEADER = 7  # bytes: of the file, and of each chunk (checksum, length, kind)
BLOCK = 32_768
LAST_KINDS = (1, 4)  # a whole record, or the end of one that goes over several blocks


def read_log(folder: Path) -> Iterator[Record]:
    """Yield the records in the log of the run in this folder, up to the last whole one."""
    [log] = folder.glob("*.wandb")
    content = log.read_bytes()
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER + length
        parts += content[position - length : position]
        if kind in LAST_KINDS:
            yield Record.FromString(parts)
            parts = b""


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the history of the run in this folder, without what W&B adds to each row."""
    rows = [record.history for record in read_log(folder) if record.HasField("history")]
    found = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in rows
    ]
    return [
        {key: value for key, value in row.items() if key not in ("_runtime", "_timestamp")} for row in found
    ]


def read_metrics(folder: Path) -> dict[str, tuple[str, bool]]:
    """Return the metrics that the run defines: name or glob -> (step metric, kept out of the summary)."""
    metrics = [record.metric for record in read_log(folder) if record.HasField("metric")]
    return {m.glob_name or m.name: (m.step_metric, m.summary.none) for m in metrics}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration that the run starts with."""
    [run] = [record.run for record in read_log(folder) if record.HasField("run")]
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the last summary."""
    found: dict[str, Any] = {}
    for record in read_log(folder):
        for item in record.summary.update:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def exit_code(folder: Path) -> int | None:
    """Return how the run ended; None while it has not."""
    codes = [record.exit.exit_code for record in read_log(folder) if record.HasField("exit")]
    return codes[-1] if codes else None
