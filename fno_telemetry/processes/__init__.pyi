"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .agreement import agree_on_errors as agree_on_errors
from .agreement import share_number as share_number
from .group import is_distributed as is_distributed
from .group import is_first_process as is_first_process
