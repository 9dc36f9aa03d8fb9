"""The public names of this package; see `fno_telemetry/__init__.pyi`."""

from .notebook import describe_for_notebook as describe_for_notebook
from .rendering import render_page as render_page
from .writing import check_page as check_page
from .writing import write_page as write_page
