"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .contract import NumbersByStep as NumbersByStep
from .contract import RunContext as RunContext
from .contract import Sink as Sink
from .fan_out import FanOut as FanOut
from .fan_out import Outcome as Outcome
from .history_file import HistoryFile as HistoryFile
from .json_file import JsonFile as JsonFile
from .options import find_misfit as find_misfit
from .options import list_options as list_options
from .options import make_sink as make_sink
from .overview import DETAILS as DETAILS
from .overview import Detail as Detail
from .overview import at_detail as at_detail
from .overview import select_overview as select_overview
from .tensorboard.sink import TensorBoard as TensorBoard
from .wandb.sink import WandbRun as WandbRun
