"""Reads W&B's transaction log, the file that an offline run consists of."""

import json
import struct
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from fno_telemetry.keys import VALIDATION
from fno_telemetry.sinks.wandb.rows import DEPTH, STEP, STEP_OF_VALIDATION
from fno_telemetry.sinks.wandb.starting import require_wandb

# The format is that of LevelDB's logs.
_HEADER = 7  # bytes: of the file, and of each chunk (checksum, length, kind)
_BLOCK = 32_768
_LAST_RECORDS = 20  # W&B writes the end of a run, and then little more
_LAST_KINDS = (1, 4)  # a whole record, or the end of one that goes over several blocks


def read_numbers(run_folder: Path) -> dict[int | None, dict[str, int | float]]:
    """Return checkpoint step -> key -> value of a run's curves; the last value where there are several."""
    found: dict[int | None, dict[str, int | float]] = {}
    for row in _history(run_folder):
        plain = {parts[0]: value for parts, value in row.items() if len(parts) == 1}
        # What has no slash is no statistic of a place, and the rows of a depth profile are none of a record.
        if DEPTH in plain:
            continue
        step, step_of_validation = plain.get(STEP), plain.pop(STEP_OF_VALIDATION, None)
        for key, value in plain.items():
            if "/" in key and _is_number(value):
                is_of_validation = key.startswith(f"{VALIDATION}/") and step_of_validation is not None
                found.setdefault(step_of_validation if is_of_validation else step, {})[key] = value
    return found


def read_rows(run_folder: Path) -> list[dict[str, Any]]:
    """Return the history of a run, without the times that W&B adds.

    A value in parts, such as a histogram, has a key for each: `histogram/lifter.bins`.
    """
    rows = ({".".join(parts): value for parts, value in row.items()} for row in _history(run_folder))
    return [
        {name: value for name, value in row.items() if name not in ("_runtime", "_timestamp")} for row in rows
    ]


def read_log(run_folder: Path) -> Iterator[Any]:
    """Yield the records (`wandb_internal_pb2.Record`) in a run's log, up to the last whole one.

    MissingExtra without wandb, which knows how to read them.
    """
    parse = _parser()
    for record in _records(run_folder):
        yield parse(record)


def is_whole(run_folder: Path) -> bool:
    """Whether all of a finished run is on disk; W&B keeps errors, as of a full disk, to itself."""
    if not any(run_folder.glob("*.wandb")):
        return False
    parse = _parser()
    last = deque(_records(run_folder), maxlen=_LAST_RECORDS)
    return any(parse(record).HasField("exit") for record in last)


def _parser() -> Callable[[bytes], Any]:
    require_wandb()
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made at import

    return cast("Callable[[bytes], Any]", Record.FromString)


def _records(run_folder: Path) -> Iterator[bytes]:
    [log] = run_folder.glob("*.wandb")
    content = log.read_bytes()
    position, parts = _HEADER, b""
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += _HEADER + length
        if position > len(content):
            return  # a kill cut it off
        parts += content[position - length : position]
        if kind in _LAST_KINDS:
            yield parts
            parts = b""


def _history(run_folder: Path) -> Iterator[dict[tuple[str, ...], Any]]:
    """Yield each row, as parts of the name -> value."""
    for record in read_log(run_folder):
        if record.HasField("history"):
            yield {
                (item.key,) if item.key else tuple(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
