"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .layer_filters import select_names as select_names
from .map_files import read_map as read_map
from .map_files import write_map as write_map
from .model_map import GivenRole as GivenRole
from .model_map import MappedBlock as MappedBlock
from .model_map import MappedModule as MappedModule
from .model_map import ModelMap as ModelMap
