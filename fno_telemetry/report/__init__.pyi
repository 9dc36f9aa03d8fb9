"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .documents import as_document as as_document
from .documents import as_plain as as_plain
from .documents import dumps as dumps
from .documents import resampled_report_name as resampled_report_name
from .documents import series_report_name as series_report_name
from .documents import write as write
from .histories import HistoryEntry as HistoryEntry
from .histories import append_to_history as append_to_history
from .histories import is_history as is_history
from .histories import list_history as list_history
from .histories import load_entries as load_entries
from .histories import load_history as load_history
from .reading import as_record as as_record
from .reading import as_record_from as as_record_from
from .reading import load_report as load_report
from .reading import read_document as read_document
from .schema import json_schema as json_schema
