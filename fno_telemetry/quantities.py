"""The table of all numbers: title, unit, group, rank and which change is worse.

Terminal, TensorBoard, W&B, `compare` and trends all read this table. Quantities of other packages are stored
in the record, so that a reader needs neither torch nor that package.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fno_telemetry.errors import OptionError

Direction = Literal["up", "down", "either", "none"]
"""Which change of a number is worse; "none": a change is only a difference."""

SHARE = "share"
"""The unit of numbers between 0 and 1."""

ORDER = "order and edges"
"""The group of numbers of the accuracy that rules read, and that fill no line that people read."""

OF_THE_TENSOR = "x"
"""The unit of the tensor's values."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """The description of one number: its key in `stats`, its title, and how `compare` judges its changes.

    `unit` is "share", "x" (that of the tensor's values), "elements", … or "1" for ratios. Views show numbers
    with a lower `rank` first and drop them last. `falls` and `rises` describe a fall or a rise that is worse;
    messages continue with "from … to …". `compared`: whether `compare` uses it; `followed`: whether trends
    do. `in_overview`: whether dashboards show it without `detail="full"`. `in_tables`: whether it is a column
    of tables, under its `heading` (default: the title); on a narrow terminal the column with the highest
    `gives_way` is dropped first, of equal ones the last, and a column with 0 is never dropped.
    """

    name: str
    title: str
    unit: str = "1"
    group: str = "other"
    rank: int = 500
    worse: Direction = "none"
    falls: str = ""
    rises: str = ""
    compared: bool = True
    followed: bool = True
    in_overview: bool = True
    in_tables: bool = True
    heading: str | None = None
    gives_way: int = 1

    @property
    def keeps_one(self) -> bool:
        """Whether 1 means "all" or "none are different", so that 0.99999 must not be shown as 1."""
        return self.unit == SHARE

    @property
    def column(self) -> str:
        """The heading of its column; it can be wrapped at its line breaks."""
        return self.heading or self.title

    def __post_init__(self) -> None:
        """Raise OptionError for a text that views cannot show, or another value that they cannot use."""
        for field in ("name", "title", "unit", "group"):
            text = getattr(self, field)
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                raise OptionError(f"the {field} of a quantity is {text!r}; expected one line of text")
        for field in ("falls", "rises", "column"):
            text = getattr(self, field)
            # Only a heading is wrapped at its line breaks.
            line = text.replace("\n", " ") if isinstance(text, str) and field == "column" else text
            if not isinstance(line, str) or not line.isprintable():
                raise self._unusable(field.replace("column", "heading"), text, "printable text")
        for field in ("rank", "gives_way"):
            if type(value := getattr(self, field)) is not int:
                raise self._unusable(field, value, "a whole number")
        for field in ("compared", "followed", "in_overview", "in_tables"):
            if type(value := getattr(self, field)) is not bool:
                raise self._unusable(field, value, "true or false")
        if self.worse not in get_args(Direction):
            raise self._unusable("worse", self.worse, f"one of {', '.join(get_args(Direction))}")

    def _unusable(self, field: str, value: object, expected: str) -> OptionError:
        return OptionError(f"the quantity {self.name!r} has {field}={value!r}; expected {expected}")


def _plain(
    name: str, title: str, group: str, unit: str = "1", rank: int = 100, in_overview: bool = False
) -> Quantity:
    """Return a number that `compare` and trends do not use, and that is no column of tables."""
    return Quantity(
        name=name,
        title=title,
        group=group,
        unit=unit,
        rank=rank,
        compared=False,
        followed=False,
        in_overview=in_overview,
        in_tables=False,
    )


_TENSOR = (
    _plain("count", "elements", "values", "elements"),
    _plain("nan_count", "NaN elements", "values", "elements", rank=20),
    _plain("inf_count", "infinite elements", "values", "elements", rank=21),
    _plain("finite_fraction", "finite share", "values", SHARE),
    _plain("mean", "mean", "values", OF_THE_TENSOR, rank=30),
    _plain("std", "standard deviation", "values", OF_THE_TENSOR, rank=31),
    Quantity(
        name="rms",
        title="root mean square",
        group="values",
        unit=OF_THE_TENSOR,
        rank=7,
        worse="either",
        falls="the rms shrank",
        rises="the rms grew",
        heading="rms",
        gives_way=0,
        in_overview=True,
    ),
    _plain("input_rms", "root mean square of the module's input", "values", OF_THE_TENSOR),
    _plain("min", "minimum", "values", OF_THE_TENSOR),
    _plain("max", "maximum", "values", OF_THE_TENSOR),
    _plain("p01", "1st percentile", "values", OF_THE_TENSOR),
    _plain("p05", "5th percentile", "values", OF_THE_TENSOR, rank=32),
    _plain("p50", "median", "values", OF_THE_TENSOR, rank=33),
    _plain("p95", "95th percentile", "values", OF_THE_TENSOR, rank=34),
    _plain("p99", "99th percentile", "values", OF_THE_TENSOR),
    _plain("abs_mean", "mean of |x|", "values", OF_THE_TENSOR),
    _plain("abs_std", "standard deviation of |x|", "values", OF_THE_TENSOR),
    Quantity(
        name="abs_p50",
        title="median of |x|",
        group="values",
        unit=OF_THE_TENSOR,
        rank=8,
        compared=False,
        followed=False,
        heading="abs_p50",
        gives_way=4,
        in_overview=True,
    ),
    _plain("abs_p95", "95th percentile of |x|", "values", OF_THE_TENSOR),
    Quantity(
        name="abs_p99",
        title="99th percentile of |x|",
        group="values",
        unit=OF_THE_TENSOR,
        rank=9,
        compared=False,
        followed=False,
        heading="abs_p99",
        gives_way=3,
        in_overview=True,
    ),
    _plain("tail_ratio", "99th percentile of |x| over its median", "values"),
    Quantity(
        name="negative_fraction",
        title="share of values below zero",
        group="values",
        unit=SHARE,
        rank=40,
        in_tables=False,
        in_overview=False,
    ),
    Quantity(
        name="zero_fraction",
        title="share of exact zeros",
        group="values",
        unit=SHARE,
        rank=41,
        followed=False,
        in_tables=False,
        in_overview=False,
    ),
    _plain("dc_fraction", "energy share of the fields' means", "spectrum", SHARE),
    Quantity(
        name="low_frequency_fraction",
        title="energy share at or below 1/8 cycle per grid point",
        group="spectrum",
        unit=SHARE,
        rank=11,
        heading="low\nfreq.",
        gives_way=0,
        in_overview=True,
    ),
    Quantity(
        name="high_frequency_fraction",
        title="energy share above 1/4 cycle per grid point",
        group="spectrum",
        unit=SHARE,
        rank=43,
        followed=False,
        in_tables=False,
        in_overview=False,
    ),
    _plain("spectral_centroid", "mean frequency by energy", "spectrum", "cycles per grid point"),
    _plain("one_sidedness", "energy at negative over energy at positive frequencies", "spectrum"),
    Quantity(
        name="sample_variation",
        title="variation between samples",
        group="samples",
        rank=10,
        worse="down",
        falls="the dependence on the input (sample variation) fell",
        heading="sample\nvar.",
        gives_way=0,
        in_overview=True,
    ),
    _plain("relative_sample_variation", "variation between samples over that of the input", "samples"),
    Quantity(
        name="dead_channel_fraction",
        title="share of dead channels",
        group="channels",
        unit=SHARE,
        rank=12,
        worse="up",
        rises="the share of dead channels rose",
        heading="dead\nch.",
        gives_way=1,
        in_overview=True,
    ),
    Quantity(
        name="constant_channel_fraction",
        title="share of constant channels",
        group="channels",
        unit=SHARE,
        rank=13,
        worse="up",
        rises="the share of constant channels rose",
        followed=False,
        in_tables=False,
        in_overview=False,
    ),
    _plain("dormant_fraction", "share of dormant channels", "channels", SHARE),
    _plain("channel_rms_min", "smallest rms of a channel", "channels", OF_THE_TENSOR),
    _plain("channel_rms_max", "largest rms of a channel", "channels", OF_THE_TENSOR),
    _plain("channel_rms_ratio", "largest over smallest rms of a channel", "channels"),
    _plain("effective_rank", "effective rank of the channels", "channels", "channels"),
    _plain("zero_sample_fraction", "share of samples that are zero everywhere", "samples", SHARE),
    _plain("truncated_energy_fraction", "energy share of the input outside the modes", "spectrum", SHARE),
)
_WEIGHTS = (
    _plain("weight_norm", "norm of the weights", "weights", "weights"),
    _plain("dead_mode_fraction", "share of modes without weights", "weights", SHARE),
    _plain("effective_modes", "effective number of modes", "weights", "modes"),
    _plain("unused_weight_fraction", "share of weights for modes beyond the resolution", "weights", SHARE),
)
_BLOCKS = (
    Quantity(
        name="spectral_local_ratio",
        title="spectral over local branch",
        group="branches",
        rank=4,
        compared=False,
        followed=False,
        heading="spectral\n/ local",
        gives_way=1,
        in_overview=False,
    ),
    Quantity(
        name="spectral_share",
        title="energy share of the spectral branch",
        group="branches",
        unit=SHARE,
        rank=2,
        worse="either",
        falls="the energy share of the spectral branch fell",
        rises="the energy share of the local branch fell",
        heading="share",
        gives_way=0,
        in_overview=True,
    ),
    Quantity(
        name="branch_cosine",
        title="cosine between the branches",
        group="branches",
        rank=5,
        compared=False,
        followed=False,
        heading="cosine",
        gives_way=2,
        in_overview=False,
    ),
    Quantity(
        name="branch_coherence",
        title="norm of the sum over the sum of the norms",
        group="branches",
        unit=SHARE,
        rank=6,
        followed=False,
        heading="coherence",
        gives_way=3,
        in_overview=False,
    ),
    Quantity(
        name="update_ratio",
        title="relative change of a block's input",
        group="branches",
        rank=1,
        worse="down",
        falls="the relative change of the block's input (update ratio) fell",
        heading="update",
        gives_way=0,
        in_overview=True,
    ),
    Quantity(
        name="gain",
        title="rms of a block's output over that of its input",
        group="branches",
        rank=3,
        worse="either",
        falls="the gain shrank",
        rises="the gain grew",
        heading="gain",
        gives_way=0,
        in_overview=True,
    ),
    _plain("missing_band_in", "share of a block's input in missing bands", "branches", SHARE),
    _plain("missing_band_out", "share of a block's output in missing bands", "branches", SHARE),
)
_GRADIENTS = (
    Quantity(
        name="grad_norm",
        title="norm of the gradient of the weights",
        group="gradients",
        unit="loss per weight",
        rank=14,
        compared=False,
        followed=False,
        heading="grad.\nnorm",
        gives_way=2,
        in_overview=True,
    ),
    _plain("grad_abs_mean", "mean magnitude of the gradient of the weights", "gradients", "loss per weight"),
    _plain("grad_to_weight", "gradient norm over weight norm", "gradients", "loss per weight squared"),
    _plain("grad_nonfinite_count", "non-finite gradient elements", "gradients", "elements"),
    _plain("output_grad_rms", "rms of the gradient of the output", "gradients", "loss per x"),
    _plain("spectral_local_gradient_ratio", "spectral over local gradient norm", "gradients"),
)
_TRAINING = (
    Quantity(
        name="update_to_weight",
        title="update over weight norm",
        group="training",
        rank=15,
        compared=False,
        followed=False,
        heading="update\n/ weight",
        gives_way=1,
        in_overview=True,
    ),
    _plain("moved", "moved since the first record", "training", rank=16),
)
_ACCURACY = (
    Quantity(
        name="relative_l2",
        title="relative L2 error",
        group="accuracy",
        rank=1,
        worse="up",
        in_overview=True,
        in_tables=False,
    ),
    _plain("relative_l2_mean", "mean relative L2 error of a sample", "accuracy", rank=5),
    Quantity(
        name="error_to_mean_predictor",
        title="error over that of predicting the mean",
        group="accuracy",
        rank=2,
        worse="up",
        in_overview=True,
        in_tables=False,
    ),
    _plain("output_to_target_rms", "output over target rms", "accuracy", in_overview=True, rank=3),
    _plain(
        "effective_resolution",
        "effective resolution",
        "accuracy",
        "cycles per grid point",
        in_overview=True,
        rank=4,
    ),
)
_ORDER = (
    _plain("input_coherence", "coherence of input and target", ORDER),
    _plain("output_coherence", "coherence of output and target", ORDER),
    _plain("edge_error_ratio", "error at the edges over that inside", ORDER),
    _plain("target_edge_jump", "jump of the target over its edges, in steps between neighbours", ORDER),
    _plain("output_edge_jump", "jump of the output over its edges, in steps between neighbours", ORDER),
    _plain("input_noise", "noise of input_coherence", ORDER),
    _plain("output_noise", "noise of output_coherence", ORDER),
)
_RESOLUTION = (
    _plain("resolution_difference", "difference from the same fields at another resolution", "resolution"),
    _plain("resolution_gain", "size over that at another resolution", "resolution"),
)
_BANDS = (
    _plain("band_error", "relative L2 error of a band", "bands"),
    _plain("spectrum_ratio", "output over target energy of a band", "bands"),
    _plain("band_coherence", "coherence of output and target in a band", "bands"),
)

QUANTITIES: Mapping[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        *_TENSOR,
        *_WEIGHTS,
        *_BLOCKS,
        *_GRADIENTS,
        *_TRAINING,
        *_ACCURACY,
        *_ORDER,
        *_RESOLUTION,
        *_BANDS,
    )
}
"""All numbers of the built-in statistics by name, in the order of table columns."""


def select(*names: str) -> tuple[Quantity, ...]:
    """Return these built-in quantities, in this order."""
    return tuple(QUANTITIES[name] for name in names)


def look_up(names: Iterable[str], stored: Sequence[Quantity] = ()) -> dict[str, Quantity]:
    """Return the quantities with these names, in the order of the table.

    `stored` are the quantities of other packages in a record; they come after the built-in ones. An unknown
    number gets its name as its title and is compared.
    """
    own = {quantity.name: quantity for quantity in stored if quantity.name not in QUANTITIES}
    wanted = list(dict.fromkeys(names))
    known = [*QUANTITIES, *own, *(name for name in wanted if name not in QUANTITIES and name not in own)]
    rest = set(wanted)
    return {
        name: QUANTITIES.get(name) or own.get(name) or Quantity(name=name, title=name)
        for name in known
        if name in rest
    }


def columns(all_stats: Iterable[Mapping[str, object]], stored: Sequence[Quantity] = ()) -> list[Quantity]:
    """Return the columns of a table over entries with these `stats`, in the order of the table."""
    names = dict.fromkeys(name for stats in all_stats for name in stats)
    return [quantity for quantity in look_up(names, stored).values() if quantity.in_tables]


def by_rank(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Return the quantities sorted by rank."""
    return sorted(quantities, key=lambda quantity: quantity.rank)
