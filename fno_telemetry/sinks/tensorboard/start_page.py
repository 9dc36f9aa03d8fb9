"""TensorBoard's server with one page more, from which it opens as its charts are meant to be read.

TensorBoard leaves the outermost values of a chart, such as a sudden break, out of its frame, and smooths
curves. Only the browser can be told otherwise, by settings that a page of the same server has to store.
"""

import base64
import hashlib
import html
import json
from collections.abc import Callable
from typing import Any

from fno_telemetry.sinks.tensorboard.sink import TensorBoard

PATH = "data/plugin/fno_telemetry/start"
"""Where the page is, after the address of the server."""

# As TensorBoard calls and spells them: of Scalars and Custom Scalars, then of Time Series.
_SETTINGS = {
    "_ignoreYOutliers": "false",
    "_tb_global_settings.timeseries": json.dumps({"ignoreOutliers": False, "scalarSmoothing": 0}),
}

_TAB = f"../../../{TensorBoard.best_tab}"

_SCRIPT = f"""
for (const [name, value] of Object.entries({json.dumps(_SETTINGS)})) {{
  if (localStorage.getItem(name) === null) localStorage.setItem(name, value);
}}
location.replace({json.dumps(_TAB)});
"""

_PAGE = f"""<!doctype html>
<meta charset="utf-8">
<title>TensorBoard</title>
<p>Opening <a href="{html.escape(_TAB)}">TensorBoard</a>.</p>
<script>{_SCRIPT}</script>
"""


def main() -> None:
    """Run TensorBoard's server until it is stopped; the command line is that of `tensorboard`."""
    from absl import app
    from tensorboard import default, main_lib, program

    main_lib.global_init()
    server = program.TensorBoard(plugins=[*default.get_plugins(), _make_plugin()])
    app.run(server.main, flags_parser=server.configure)


def _make_plugin() -> type:
    """Return the plug-in that serves the page; it has no tab."""
    from tensorboard.backend import http_util
    from tensorboard.plugins import base_plugin
    from werkzeug import wrappers

    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()

    @wrappers.Request.application
    def start(request: Any) -> Any:
        return http_util.Respond(request, _PAGE, "text/html", csp_scripts_sha256s=[digest])

    class StartPage(base_plugin.TBPlugin):  # type: ignore[misc]  # has no types
        plugin_name = "fno_telemetry"

        def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
            return {"/start": start}

        def is_active(self) -> bool:
            return False

        def frontend_metadata(self) -> Any:
            return base_plugin.FrontendMetadata(disable_reload=True)

    return StartPage


if __name__ == "__main__":
    main()
