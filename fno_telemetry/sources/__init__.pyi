"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .arrays import Samples as Samples
from .arrays import read_samples as read_samples
from .arrays import split_batches as split_batches
from .axis_orders import describe_axes as describe_axes
from .batch_parts import BatchParts as BatchParts
from .batch_words import BATCH_NOTE as BATCH_NOTE
from .batch_words import CHOICE_NOTE as CHOICE_NOTE
from .checkpoints import Checkpoint as Checkpoint
from .checkpoints import read_checkpoint as read_checkpoint
from .factories import Network as Network
from .factories import build_from_factory as build_from_factory
from .factories import build_network as build_network
from .factories import import_object as import_object
from .factories import parse_setting as parse_setting
from .factories import parse_settings as parse_settings
from .file_batches import read_file_batches as read_file_batches
from .loaders import count_samples as count_samples
from .loaders import find_first as find_first
from .loaders import move_batch as move_batch
from .loaders import read_batches as read_batches
from .weight_files.locations import INDEX_ENDING as INDEX_ENDING
from .weight_files.locations import Location as Location
from .weight_files.locations import find_whole as find_whole
from .weight_loading import WeightMatch as WeightMatch
from .weight_loading import load_weights as load_weights
