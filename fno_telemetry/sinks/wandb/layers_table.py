"""The layers of all records of a run in W&B: a row for each layer of each record's overview."""

from collections import deque
from typing import Any

from fno_telemetry import keys
from fno_telemetry.quantities import Quantity
from fno_telemetry.records import CaptureRecord
from fno_telemetry.sinks.overview import Layer, list_layers, sort_quantities
from fno_telemetry.sinks.wandb.tables import MOST_ROWS, Table
from fno_telemetry.wording import to_one_line

TABLE = "layers/table"
"""The key of the table."""

FILE = "layers.csv"
"""The table as a plain file."""

COLUMNS = ("step", "layer", "role", "shape")
"""The first columns; each statistic follows with one."""


class LayersTable:
    """Keeps the latest MOST_ROWS rows."""

    def __init__(self) -> None:
        self._layers: deque[tuple[int | None, Layer]] = deque(maxlen=MOST_ROWS)
        self._latest: CaptureRecord | None = None

    def add(self, record: CaptureRecord) -> None:
        """Add a row for each layer of the record's overview, in order of depth."""
        self._layers += [(record.step, layer) for layer in list_layers(record)]
        self._latest = record

    def take(self) -> Table:
        """Return the table, with the statistics in the order of charts, and forget its rows."""
        layers, latest = list(self._layers), self._latest
        self._layers.clear()
        statistics: list[Quantity] = []
        if latest is not None:
            statistics = sort_quantities({name for _, layer in layers for name in layer.stats}, latest)
        names = tuple(quantity.name for quantity in statistics)
        rows = [_row(step, layer, names) for step, layer in layers]
        return Table(TABLE, FILE, (*COLUMNS, *names), rows)


def _row(step: int | None, layer: Layer, statistics: tuple[str, ...]) -> list[Any]:
    shape = None if layer.shape is None else "x".join(map(str, layer.shape))
    values = [layer.stats.get(name) for name in statistics]
    shown = [value if keys.is_defined(value) else None for value in values]
    return [step, to_one_line(layer.name), layer.role, shape, *shown]
