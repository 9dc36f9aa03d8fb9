"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .activation import Activation as Activation
from .activation import Layout as Layout
from .contract import Empty as Empty
from .contract import Known as Known
from .contract import MergedBy as MergedBy
from .contract import Of as Of
from .contract import State as State
from .contract import Statistic as Statistic
from .contract import Summary as Summary
from .contract import SummedState as SummedState
from .contract import Undefined as Undefined
from .contract import keys_of as keys_of
from .kernels.choice import kernels_in_use as kernels_in_use
from .named_losses import NAMED_LOSSES as NAMED_LOSSES
from .subjects import BlockCall as BlockCall
from .subjects import BranchGradients as BranchGradients
from .subjects import BranchSum as BranchSum
from .subjects import Comparison as Comparison
from .subjects import ModeSizes as ModeSizes
from .subjects import OutputGradient as OutputGradient
from .subjects import ParameterGradient as ParameterGradient
from .subjects import ParameterGradients as ParameterGradients
from .subjects import ResidualUpdate as ResidualUpdate
from .subjects import SpectralInput as SpectralInput
from .subjects import Weights as Weights
