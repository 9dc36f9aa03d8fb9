"""The overview of a record: the layers and numbers that dashboards show unless they are asked for all.

The report holds everything. The overview has the layers with a role in the operator, the input and the first
output; in training also the accuracy, and the parameters that belong to no layer. Each has at most
`MOST_NUMBERS` numbers: those whose `Quantity` is `in_overview`, the most telling first. So a number of
another package is in it, unless that package says otherwise.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

from fno_telemetry import keys
from fno_telemetry.quantities import Quantity, look_up
from fno_telemetry.records import (
    AccuracyRecord,
    BlockRecord,
    CaptureRecord,
    FrozenMapping,
    ModuleRecord,
    ParameterRecord,
    Role,
    TensorRecord,
    Value,
)

Detail = Literal["overview", "full"]
"""How much of each record a dashboard gets."""

DETAILS: tuple[Detail, ...] = get_args(Detail)

FIRST = ("low_frequency_fraction", "spectral_share")
"""What dashboards show first; the rest follows by rank."""

LOSS = "captured_loss"
"""The key of the loss of a capture or of a training step, a number of the whole model."""

MOST_LAYERS = 200
"""Of a network with more layers, the overview has so many, evenly spread over the depth."""

MOST_NUMBERS = 12
"""Numbers of one layer; those of a block count as its layer's."""


@dataclass(frozen=True)
class Layer:
    """A layer of an overview by the name that the user wrote; no shape where only the block is recorded."""

    name: str
    role: Role | Literal["input", "output"]
    shape: tuple[int, ...] | None
    stats: FrozenMapping[Value]


Item = TypeVar("Item")
Entry = TypeVar("Entry", TensorRecord, ModuleRecord, BlockRecord, ParameterRecord, AccuracyRecord)


def at_detail(record: CaptureRecord, detail: Detail) -> CaptureRecord:
    """Return what a dashboard gets of the record: its overview, or the record itself."""
    return record if detail == "full" else select_overview(record)


def select_overview(record: CaptureRecord) -> CaptureRecord:
    """Return the record with the layers and numbers of its overview alone.

    Names and roles decide, not values, so it has the same curves at every step. In a network without any
    layer of `keys.ROLES`, those of role "other" take their place, and without those, all layers.
    """
    modules = spread(keys.layers_in_order(record), MOST_LAYERS)
    blocks = spread(record.blocks, MOST_LAYERS)
    there: dict[str, set[str]] = {}
    for place, entry in _sides(record):
        there.setdefault(place, set()).update(entry.stats)
    layers: list[ModuleRecord | BlockRecord] = [*modules, *blocks]
    for layer in layers:
        there.setdefault(keys.record_place(layer), set()).update(layer.stats)
    for parameter in record.parameters:
        there.setdefault(keys.place(parameter.name), set()).update(parameter.stats)
    if record.accuracy is not None:
        there[keys.ACCURACY] = set(record.accuracy.stats)
    names = [quantity.name for quantity in sort_quantities(set().union(*there.values()), record)]
    kept = {place: [name for name in names if name in own][:MOST_NUMBERS] for place, own in there.items()}

    def reduce(entry: Entry, place: str) -> Entry:
        stats = {name: entry.stats[name] for name in kept[place] if name in entry.stats}
        return replace(entry, stats=FrozenMapping(stats))

    sides = {place: reduce(entry, place) for place, entry in _sides(record)}
    # Of a parameter that belongs to a layer only its movement is known, which is in no overview.
    parameters = [reduce(parameter, keys.place(parameter.name)) for parameter in record.parameters]
    shown = [parameter for parameter in parameters if parameter.stats]
    return replace(
        record,
        modules=tuple(reduce(module, keys.record_place(module)) for module in modules),
        blocks=tuple(reduce(block, keys.record_place(block)) for block in blocks),
        input=sides.get(keys.model_place("input")),
        inputs=(),
        output=sides.get(keys.model_place("output")),
        outputs=(),
        target=sides.get(keys.model_place("target")),
        parameters=tuple(spread(shown, MOST_LAYERS)),
        accuracy=None
        if record.accuracy is None
        else replace(reduce(record.accuracy, keys.ACCURACY), bands=None, channels=None),
    )


def list_layers(record: CaptureRecord) -> list[Layer]:
    """Return the layers of the overview in order of depth; the numbers of a block are those of its layer."""
    shown = select_overview(record)
    found: dict[str, Layer] = {}
    if shown.input is not None:
        found[keys.model_place("input")] = Layer("input", "input", shown.input.shape, shown.input.stats)
    for module in shown.modules:
        found[keys.record_place(module)] = Layer(module.place, module.role, module.shape, module.stats)
    for block in shown.blocks:
        layer = found.get(keys.record_place(block), Layer(block.place, "block", None, FrozenMapping()))
        found[keys.record_place(block)] = replace(layer, stats=FrozenMapping({**layer.stats, **block.stats}))
    if shown.output is not None:
        found[keys.model_place("output")] = Layer("output", "output", shown.output.shape, shown.output.stats)
    return list(found.values())


def sort_quantities(
    statistics: Iterable[str], record: CaptureRecord, detail: Detail = "overview"
) -> list[Quantity]:
    """Return those of these statistics that a dashboard gets, in the order in which it shows them."""
    found = look_up(statistics, record.quantities).values()
    shown = [quantity for quantity in found if detail == "full" or quantity.in_overview]
    return sorted(shown, key=lambda quantity: (rank_among_first(quantity.name), quantity.rank))


def rank_among_first(statistic: str) -> int:
    """Return the place of a statistic in FIRST; that of any other is after them."""
    return FIRST.index(statistic) if statistic in FIRST else len(FIRST)


def loss_by_key(record: CaptureRecord) -> dict[str, float]:
    """Return the loss of the record under the key that dashboards use; {} where none was given.

    The key is not `loss`, which a training loop's own curves usually have.
    """
    loss = record.summary.get("loss")
    if isinstance(loss, float) and keys.is_defined(loss):
        return {keys.of_stage(LOSS, record): loss}
    return {}


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _sides(record: CaptureRecord) -> Iterator[tuple[str, TensorRecord]]:
    """Yield the input, the first output and the target of the model, with their places."""
    if record.input is not None:
        yield keys.model_place("input"), record.input
    if record.output is not None:
        yield keys.model_place("output"), record.output
    if record.target is not None:
        yield keys.model_place("target"), record.target
