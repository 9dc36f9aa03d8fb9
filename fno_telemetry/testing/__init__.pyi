"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .statistics import check_statistic as check_statistic
from .subjects import Data as Data
from .subjects import example_data as example_data
from .subjects import make_subject as make_subject
