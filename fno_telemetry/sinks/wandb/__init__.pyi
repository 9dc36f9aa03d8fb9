"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .how_to_look import how_to_look as how_to_look
from .run_notes import KnownRun as KnownRun
from .run_notes import runs_in as runs_in
from .sink import WandbRun as WandbRun
from .workspace import SavedWorkspace as SavedWorkspace
from .workspace import save_workspace as save_workspace
