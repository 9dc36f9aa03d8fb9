"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .contract import Architecture as Architecture
