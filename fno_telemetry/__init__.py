"""See what happens inside neural operators: capture once, look anywhere.

What needs torch, tensorboard or wandb is imported on first use, so that reading reports stays quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fno_telemetry.version import __version__

if TYPE_CHECKING:
    from fno_telemetry.comparison.changes import LayerChange
    from fno_telemetry.comparison.thresholds import Thresholds, read_thresholds
    from fno_telemetry.comparison.verdicts import Comparison, compare
    from fno_telemetry.diagnosis.findings import diagnose
    from fno_telemetry.diagnosis.rule_thresholds import RuleExplanation, explain_rule, read_rule_thresholds
    from fno_telemetry.errors import (
        CheckpointError,
        InputError,
        MapError,
        MissingExtra,
        ModelError,
        OptionError,
        PluginNotFound,
        ReportError,
        SinkUnavailable,
        TelemetryError,
    )
    from fno_telemetry.files import whole_file, why_unwritable
    from fno_telemetry.findings import Finding
    from fno_telemetry.mapping.layer_filters import select_names
    from fno_telemetry.mapping.map_files import read_map, write_map
    from fno_telemetry.mapping.model_map import GivenRole, MappedModule, ModelMap
    from fno_telemetry.plugins import list_plugins
    from fno_telemetry.plugins import load as load_plugin
    from fno_telemetry.plugins import names as plugin_names
    from fno_telemetry.records import BlockRecord, CaptureRecord, ModuleRecord, TensorRecord
    from fno_telemetry.records import step_label as series_label
    from fno_telemetry.report import as_document, json_schema, series_report_name
    from fno_telemetry.report import dumps as dump_report
    from fno_telemetry.report import load as load_report
    from fno_telemetry.session import capture, map_model
    from fno_telemetry.sinks.contract import RunContext, Sink
    from fno_telemetry.sinks.fan_out import FanOut, Outcome
    from fno_telemetry.sinks.json_file import JsonFile
    from fno_telemetry.sinks.tensorboard.sink import TensorBoard
    from fno_telemetry.sinks.wandb.how_to_look import how_to_look as how_to_look_at_wandb
    from fno_telemetry.sinks.wandb.run_notes import KnownRun as KnownWandbRun
    from fno_telemetry.sinks.wandb.run_notes import runs_in as wandb_runs_in
    from fno_telemetry.sinks.wandb.sink import WandbRun
    from fno_telemetry.sinks.wandb.workspace import SavedWorkspace
    from fno_telemetry.sinks.wandb.workspace import save_workspace as save_wandb_workspace
    from fno_telemetry.sources.arrays import Samples, read_samples
    from fno_telemetry.sources.arrays import batches as split_batches
    from fno_telemetry.sources.checkpoints import Checkpoint, load_weights, read_checkpoint
    from fno_telemetry.sources.factories import (
        Network,
        build_from_factory,
        build_network,
        import_object,
        parse_settings,
    )

_HOMES = {
    "fno_telemetry.errors": (
        *("CheckpointError", "InputError", "MapError", "MissingExtra", "ModelError", "OptionError"),
        *("PluginNotFound", "ReportError", "SinkUnavailable", "TelemetryError"),
    ),
    "fno_telemetry.mapping.layer_filters": ("select_names",),
    "fno_telemetry.mapping.map_files": ("read_map", "write_map"),
    "fno_telemetry.mapping.model_map": ("GivenRole", "MappedModule", "ModelMap"),
    "fno_telemetry.plugins": ("list_plugins",),
    "fno_telemetry.records": ("BlockRecord", "CaptureRecord", "ModuleRecord", "TensorRecord"),
    "fno_telemetry.findings": ("Finding",),
    "fno_telemetry.files": ("whole_file", "why_unwritable"),
    "fno_telemetry.report": ("as_document", "json_schema", "series_report_name"),
    "fno_telemetry.session": ("capture", "map_model"),
    "fno_telemetry.sinks.contract": ("RunContext", "Sink"),
    "fno_telemetry.sinks.fan_out": ("FanOut", "Outcome"),
    "fno_telemetry.sinks.json_file": ("JsonFile",),
    "fno_telemetry.sinks.tensorboard.sink": ("TensorBoard",),
    "fno_telemetry.sinks.wandb.sink": ("WandbRun",),
    "fno_telemetry.sinks.wandb.workspace": ("SavedWorkspace",),
    "fno_telemetry.comparison.changes": ("LayerChange",),
    "fno_telemetry.comparison.thresholds": ("Thresholds", "read_thresholds"),
    "fno_telemetry.comparison.verdicts": ("Comparison", "compare"),
    "fno_telemetry.diagnosis.findings": ("diagnose",),
    "fno_telemetry.diagnosis.rule_thresholds": ("RuleExplanation", "explain_rule", "read_rule_thresholds"),
    "fno_telemetry.sources.arrays": ("Samples", "read_samples"),
    "fno_telemetry.sources.checkpoints": ("Checkpoint", "load_weights", "read_checkpoint"),
    "fno_telemetry.sources.factories": (
        *("Network", "build_from_factory", "build_network", "import_object", "parse_settings"),
    ),
}
_WHERE = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "KnownWandbRun": ("fno_telemetry.sinks.wandb.run_notes", "KnownRun"),
    "dump_report": ("fno_telemetry.report", "dumps"),
    "how_to_look_at_wandb": ("fno_telemetry.sinks.wandb.how_to_look", "how_to_look"),
    "load_plugin": ("fno_telemetry.plugins", "load"),
    "load_report": ("fno_telemetry.report", "load"),
    "plugin_names": ("fno_telemetry.plugins", "names"),
    "save_wandb_workspace": ("fno_telemetry.sinks.wandb.workspace", "save_workspace"),
    "series_label": ("fno_telemetry.records", "step_label"),
    "split_batches": ("fno_telemetry.sources.arrays", "batches"),
    "wandb_runs_in": ("fno_telemetry.sinks.wandb.run_notes", "runs_in"),
}

__all__ = [
    "BlockRecord",
    "CaptureRecord",
    "Checkpoint",
    "CheckpointError",
    "Comparison",
    "FanOut",
    "Finding",
    "GivenRole",
    "InputError",
    "JsonFile",
    "KnownWandbRun",
    "LayerChange",
    "MapError",
    "MappedModule",
    "MissingExtra",
    "ModelError",
    "ModelMap",
    "ModuleRecord",
    "Network",
    "OptionError",
    "Outcome",
    "PluginNotFound",
    "ReportError",
    "RuleExplanation",
    "RunContext",
    "Samples",
    "SavedWorkspace",
    "Sink",
    "SinkUnavailable",
    "TelemetryError",
    "TensorBoard",
    "TensorRecord",
    "Thresholds",
    "WandbRun",
    "__version__",
    "as_document",
    "build_from_factory",
    "build_network",
    "capture",
    "compare",
    "diagnose",
    "dump_report",
    "explain_rule",
    "how_to_look_at_wandb",
    "import_object",
    "json_schema",
    "list_plugins",
    "load_plugin",
    "load_report",
    "load_weights",
    "map_model",
    "parse_settings",
    "plugin_names",
    "read_checkpoint",
    "read_map",
    "read_rule_thresholds",
    "read_samples",
    "read_thresholds",
    "save_wandb_workspace",
    "select_names",
    "series_label",
    "series_report_name",
    "split_batches",
    "wandb_runs_in",
    "whole_file",
    "why_unwritable",
    "write_map",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, attribute = _WHERE[name]
    value = getattr(importlib.import_module(home), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
