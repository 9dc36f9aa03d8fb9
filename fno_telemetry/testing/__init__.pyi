"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .architectures import check_architecture as check_architecture
from .in_memory_sink import InMemorySink as InMemorySink
from .rules import check_rule as check_rule
from .sinks import check_records as check_records
from .sinks import check_sink as check_sink
from .statistics import check_statistic as check_statistic
from .subjects import Data as Data
from .subjects import example_data as example_data
from .subjects import make_subject as make_subject
