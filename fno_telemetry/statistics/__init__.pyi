"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .activation import Activation as Activation
from .contract import Empty as Empty
from .contract import State as State
from .contract import Statistic as Statistic
from .contract import Summary as Summary
from .contract import Undefined as Undefined
