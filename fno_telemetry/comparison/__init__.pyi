"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .changes import Change as Change
from .changes import LayerChange as LayerChange
from .comparing import compare as compare
from .learning import has_learned_since as has_learned_since
from .results import Comparison as Comparison
from .results import GroupFinding as GroupFinding
from .thresholds import Thresholds as Thresholds
from .thresholds import read_thresholds as read_thresholds
from .trends import Series as Series
from .trends import Trend as Trend
