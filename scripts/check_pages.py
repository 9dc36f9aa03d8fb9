"""Look at pages with an accessibility checker, in a browser without a network: what would keep readers out.

    python scripts/check_pages.py [PAGE.html | FOLDER]...

Without arguments, it makes a page of every kind, and reads those and the site that `make docs` has built.
Each is drawn on a light phone and on a dark desk. A serious fault that axe-core [1] finds, or a page that is
wider than the window, ends it with 1. It needs chromium, and npm to fetch axe-core.

[1] https://github.com/dequelabs/axe-core
"""

import html
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
AXE = "axe-core@4.14.1"
WINDOWS = ((390, False), (1200, True))
"""Pixels of a phone and of a desk, and whether it is dark: colours do not depend on the width."""

SERIOUS = {"serious", "critical"}
_SECONDS = 120
_ASK = """
<script>{axe}</script>
<script>addEventListener("load", async () => {{
  const found = await axe.run({{resultTypes: ["violations"]}});
  const describe = (node) => `${{node.target}}: ${{node.html.slice(0, 120)}}`;
  const seen = found.violations.map(({{id, impact, help, nodes}}) =>
    ({{id, impact, help, where: nodes.slice(0, 3).map(describe)}}));
  parent.postMessage(JSON.stringify({{seen, rules: found.passes.length + seen.length,
    width: innerWidth, isDark: matchMedia("(prefers-color-scheme: dark)").matches,
    tooWide: document.documentElement.scrollWidth - innerWidth}}), "*");
}});</script>
"""
# A window of chromium has 500 pixels at least, a frame in it as many as are asked for.
_FRAME = """<!doctype html><meta name="color-scheme" content="light dark"><pre></pre>
<script>
addEventListener("message", ({{data}}) => {{ document.querySelector("pre").textContent = data; }});
</script>
<iframe src="{page}" width="{width}" height="2000" style="border: 0"></iframe>
"""


def main() -> int:
    """Check the pages, and return the exit code."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("needs chromium: install it, then run this again")
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        axe = fetch_axe(folder)
        pages = list_pages([Path(given) for given in sys.argv[1:]]) or [*make_pages(folder), *list_site()]
        faults = sum(check(browser, page, axe) for page in pages)
    print(f"{len(pages)} pages, {faults} serious faults")
    return 1 if faults else 0


def fetch_axe(folder: Path) -> str:
    """Return the source of axe-core."""
    subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    [archive] = folder.glob("axe-core-*.tgz")
    with tarfile.open(archive) as files:
        source = files.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode("utf-8")


def list_pages(given: list[Path]) -> list[Path]:
    """Return the pages that were named, and those in the folders that were."""
    return [page for path in given for page in (sorted(path.glob("*.html")) if path.is_dir() else [path])]


def list_site() -> list[Path]:
    """Return the pages of the site."""
    pages = list_pages([ROOT / "site"])
    if not pages:
        print("site/ has no page: `make docs` builds them")
    return pages


def make_pages(folder: Path) -> list[Path]:
    """Write a page of every kind: of one record, healthy and broken; of a training; of two records."""
    sys.path.insert(0, str(ROOT / "tests"))
    import fno_telemetry as ft
    from fno_telemetry import page
    from support.picture_records import broken_run, example, healthy, hostile

    run = broken_run()
    found = ft.diagnose(*run)
    hostile_record = hostile()
    return [
        page.write_page(folder / "healthy.html", [healthy()], ()),
        page.write_page(folder / "broken.html", [example()]),
        page.write_page(folder / "hostile.html", [hostile_record], hostile_record.findings),
        page.write_page(folder / "training.html", run, found),
        page.write_page(folder / "comparison.html", run[-2:], comparison=ft.compare(*run[-2:])),
    ]


def check(browser: str, page: Path, axe: str) -> int:
    """Print the faults of a page, and return how many are serious."""
    faults = 0
    for width, is_dark in WINDOWS:
        found = ask(browser, page, axe, width, is_dark)
        how = f"{page.name} {width} px {'dark' if is_dark else 'light'}"
        if found["tooWide"] > 0:
            print(f"{how}: wider than the window by {found['tooWide']} px", flush=True)
            faults += 1
        for fault in found["seen"]:
            if fault["impact"] in SERIOUS:
                print(f"{how}: {fault['impact']}: {fault['id']}: {fault['help']}")
                print("".join(f"    {where}\n" for where in fault["where"]), end="", flush=True)
                faults += 1
    return faults


def ask(browser: str, page: Path, axe: str, width: int, is_dark: bool) -> Any:
    """Return what axe-core says of a page that is drawn without a network."""
    text = page.read_text(encoding="utf-8")
    # The policy of our pages would refuse a second script, which is what it is for.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    asking = page.with_name(f".checked-{page.name}")  # next to it, for what it loads from there
    frame = page.with_name(f".frame-{page.name}")
    asking.write_text(text.replace("</body>", _ASK.format(axe=axe) + "</body>"), encoding="utf-8")
    frame.write_text(_FRAME.format(page=asking.name, width=width), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--proxy-server=127.0.0.1:9", f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"]
    command += ["--virtual-time-budget=60000", "--dump-dom", frame.absolute().as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    finally:
        asking.unlink()
        frame.unlink()
    [result] = re.findall(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    found = json.loads(html.unescape(result))
    assert found["rules"] > 10, "axe-core has not looked"
    assert (found["width"], found["isDark"]) == (width, is_dark), f"another window: {found}"
    return found


if __name__ == "__main__":
    sys.exit(main())
