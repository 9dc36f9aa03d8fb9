"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from . import accelerate as accelerate
from . import lightning as lightning
from . import neuralop as neuralop
