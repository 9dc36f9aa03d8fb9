"""Reads more than numbers from W&B's transaction log, which is all that an offline run is."""

import json
from pathlib import Path
from typing import Any

from fno_telemetry.sinks.wandb import transaction_log
from fno_telemetry.sinks.wandb.transaction_log import read_log

__all__ = [
    "exit_code",
    "read_config",
    "read_log",
    "read_media",
    "read_metrics",
    "read_rows",
    "read_summary",
    "read_tables",
]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that hold numbers, without the tables and pictures that are logged at the end."""
    rows = []
    for row in transaction_log.read_rows(folder):
        kept = {key: value for key, value in row.items() if not (_is_of_a_table(key) or _is_media(key))}
        # W&B itself adds the step metric to a table's row.
        if kept == row or kept.keys() - {"_step", "checkpoint_step"}:
            rows.append(kept)
    return rows


def read_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Return each table that was logged, key -> columns and data, from the file that is uploaded."""
    found: dict[str, dict[str, Any]] = {}
    for row in transaction_log.read_rows(folder):
        for key in [key for key in row if _is_of_a_table(key) and key.endswith(".path")]:
            found[key.removesuffix(".path")] = json.loads((folder / "files" / row[key]).read_text())
    return found


def read_media(folder: Path) -> dict[int | None, dict[str, Path]]:
    """Return the pictures and pages that were logged: checkpoint step -> key -> the file that is uploaded."""
    found: dict[int | None, dict[str, Path]] = {}
    for row in transaction_log.read_rows(folder):
        for key in [key for key in row if _is_media(key) and key.endswith(".path")]:
            of_step = found.setdefault(row.get("checkpoint_step"), {})
            of_step[key.removesuffix(".path")] = folder / "files" / row[key]
    return found


def _is_media(key: str) -> bool:
    return key.startswith("pictures/")


def _is_of_a_table(key: str) -> bool:
    return key.partition(".")[0].endswith("/table")


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
