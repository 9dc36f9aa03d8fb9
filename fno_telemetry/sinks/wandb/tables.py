"""The tables that are logged once, at the end of a run."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_ROWS = 10_000
"""W&B shows no more rows of a table."""


@dataclass(frozen=True)
class Table:
    """The rows of a table, under the key that W&B shows it by; `file` is its name as a plain file."""

    key: str
    file: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]

    def as_csv(self) -> bytes:
        """Return the table as a CSV file in UTF-8; what is None is empty."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *self.rows])
        return text.getvalue().encode()
