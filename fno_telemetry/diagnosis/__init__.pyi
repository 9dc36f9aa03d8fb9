"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .contract import Rule as Rule
from .contract import Symptom as Symptom
from .findings import diagnose as diagnose
from .places import Place as Place
from .places import block_places as block_places
from .places import input_place as input_place
from .places import module_places as module_places
from .places import output_place as output_place
from .places import tensor_places as tensor_places
from .rule_thresholds import RuleExplanation as RuleExplanation
from .rule_thresholds import RuleThresholds as RuleThresholds
from .rule_thresholds import explain_rule as explain_rule
from .rule_thresholds import read_rule_thresholds as read_rule_thresholds
