"""The measurement plan of a model: what its forward calls, and where everything that is measured appears.

With a plan, a forward is measured by plain hooks on modules. Functions are counted only in forwards that
compute something to be measured outside of modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.mapping.spectral_calls import SpectralCall
from fno_telemetry.tracing.appearances import Appearance
from fno_telemetry.tracing.events import Padded
from fno_telemetry.tracing.module_calls import modules_by_path, written_class


@dataclass(frozen=True, eq=False)
class PlannedCall:
    """A module call; calls are in the order in which they start, and call 0 is the whole batch."""

    path: str
    parent: int  # the index of the call around it
    ranks: tuple[int, ...] = ()  # of the tensors that it returns; -1 for one without a shape
    overwrites: bool = False  # it writes into its own input
    class_name: str = ""
    functions: tuple[str, ...] = ()  # the names of those that its own code calls
    counts_other_writes: bool = False  # torch counts writes elsewhere in the memory of its input
    own_transforms: int = 0
    spectral: SpectralCall | None = None


@dataclass(frozen=True)
class Wanted:
    """A tensor that is needed, where it appears first, and whether it is overwritten before it is used."""

    appearance: Appearance
    copied: bool


@dataclass(frozen=True)
class PlannedProduct:
    """Wanted tensors, by position among them, and numbers; all are multiplied."""

    tensors: tuple[int, ...]
    numbers: tuple[float, ...]


PlannedFormula = tuple[PlannedProduct, ...]
"""A sum of products; () for a tensor that is not needed, or does not exist."""


@dataclass(frozen=True)
class PlannedEnd:
    """A module call ends."""

    call: int
    formulas: tuple[PlannedFormula, ...] = ()


@dataclass(frozen=True)
class PlannedActivation:
    """An activation function is called in the forward of the call `parent`."""

    parent: int
    name: str
    number: int
    path: str
    formulas: tuple[PlannedFormula, ...]


@dataclass(frozen=True)
class PlannedBranches:
    """A spectral and a local branch are added: see `BranchesAdded`, where the formulas are listed too."""

    parent: int
    spectral: tuple[int, ...]
    local: tuple[int, ...]
    order: int
    spans_blocks: bool
    formulas: tuple[PlannedFormula, ...]


@dataclass(frozen=True)
class PlannedResidual:
    """A block's input is added: see `ResidualAdded`, where the formulas are listed too."""

    parent: int
    spectral: tuple[int, ...]
    order: int
    formulas: tuple[PlannedFormula, ...]


PlannedEvent = PlannedEnd | PlannedActivation | PlannedBranches | PlannedResidual


@dataclass(frozen=True, eq=False)
class MeasurementPlan:
    """How the forwards of a model are measured; made once by `fno_telemetry.plan`.

    It holds for batches of any size, and for other models of the same structure, such as other checkpoints.
    """

    model_map: ModelMap
    calls: tuple[PlannedCall, ...]
    events: tuple[PlannedEvent, ...]
    wanted: tuple[Wanted, ...]
    pads: tuple[Padded, ...] = ()
    field_shapes: tuple[tuple[int, ...], ...] = ()  # of its batch: see `list_field_shapes`
    why_traced: str | None = None  # why every forward has to be followed function by function
    differentiates: bool = False  # the forward needs gradients
    has_homeless_transforms: bool = False  # Fourier transforms are called outside of its modules
    lent: frozenset[str] = frozenset()  # modules with whose tensors other code computes
    methods: Mapping[str, str] = field(default_factory=dict)  # by path: the method by which a module is run

    def explain_misfit(self, model: nn.Module) -> str | None:
        """Return why the plan does not fit a model; None if the model has all modules that are called."""
        classes = {path: written_class(m).__name__ for path, m in modules_by_path(model).items()}
        for call in self.calls[1:]:
            if (name := classes.get(call.path)) != call.class_name:
                place = f"module {call.path!r}" if call.path else "the model"
                own = f"has {name} as {place}" if name else f"has no {place}"
                return (
                    f"the plan was made for another model, with {call.class_name} as {place}; this one {own}"
                )
        return None
