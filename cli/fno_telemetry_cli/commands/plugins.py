"""`fno-telemetry plugins`: what can be used here, and what is missing to use it."""

from itertools import groupby

from rich.table import Table
from rich.text import Text

import fno_telemetry as ft
from fno_telemetry import statistics
from fno_telemetry.plugins import Plugin
from fno_telemetry.wording import to_printable
from fno_telemetry_cli.options.output import PrintingOptions
from fno_telemetry_cli.options.signature import with_options
from fno_telemetry_cli.showing.terminal import keep_stdout_clean, print_json, print_notes, print_results


@with_options(PrintingOptions)
def plugins(request: PrintingOptions) -> None:
    """List the sinks, statistics, architectures and rules, both built in and from plug-ins.

    Example: fno-telemetry plugins

    For programs: fno-telemetry plugins --json
    """
    with keep_stdout_clean():
        found, kernels = ft.list_plugins(), statistics.kernels_in_use()
    if request.as_json:
        entries = [{"kind": p.kind, "name": p.name, "origin": p.origin, "missing": p.missing} for p in found]
        print_json({"schema": "fno-telemetry-plugins/1", "plugins": entries, "kernels": kernels})
        return
    print_results(_table(found))
    if not request.quiet:
        faster = "" if kernels.startswith("numba") else "; faster with pip install 'fno-telemetry[fast]'"
        print_notes(
            [
                f"large tensors are measured by {kernels}{faster}",
                "packages add theirs by the entry points fno_telemetry.sinks, .statistics, …",
            ]
        )


def _table(found: list[Plugin]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "from", "missing to use it"):
        table.add_column(column, overflow="fold")
    for kind, members in groupby(found, key=lambda plugin: plugin.kind):
        table.add_row(Text(kind, style="bold"))
        for plugin in members:
            cells = (f"  {plugin.name}", plugin.origin, plugin.missing or "nothing")
            table.add_row(*map(to_printable, cells))
    return table
