"""Writes the screenshots of README and the documentation: the HTML page, and TensorBoard's tabs.

    python docs/generators/screenshots.py [FOLDER]

The run is that of `make demo`; FOLDER is its folder, and without it the demo is run first, which takes
minutes. It needs chromium. A tab that a run has nothing for is left out, with a line that says so.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
COLOURS = 256
LARGEST = 150_000  # bytes
_SECONDS = 120


@dataclass(frozen=True)
class Tab:
    """A tab of TensorBoard; `plugin` is what has its data."""

    name: str
    address: str
    plugin: str
    height: int = 760


TABS = (
    Tab("tensorboard-overview", "#text&_smoothingWeight=0", "text"),
    Tab("tensorboard-layers", "#custom_scalars&_smoothingWeight=0", "custom_scalars"),
    Tab("tensorboard-histograms", "#histograms", "histograms"),
    Tab("tensorboard-images", "#images", "images"),
)
PARTS = {
    "page": ("", 765),
    "page-steps": ("<style>body > *, main > * {display: none} main, #steps {display: block}</style>", 1015),
}
"""Of the page of the demo, the style that leaves a part of it, and the height of that."""

WIDTH, WIDER = 1000, 1280  # pixels of a page, and of TensorBoard


def main() -> None:
    """Take the screenshots."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("needs chromium: install it, then run this again")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if len(sys.argv) > 1:
            shutil.copytree(sys.argv[1], work / "demo")
        else:
            subprocess.run(["make", "demo", f"DEMO={work / 'demo'}"], cwd=ROOT, check=True)
        page = (work / "demo" / "page.html").read_text(encoding="utf-8")
        for name, (style, height) in PARTS.items():
            part = work / f"{name}.html"
            part.write_text(page.replace("</head>", f"{style}</head>"), encoding="utf-8")
            take(browser, work, part.as_uri(), name, (WIDTH, height))
        with serving(work) as start:
            server = start.partition("/data/")[0]
            # Its first page is one of ours, which lets charts show every value.
            take(browser, work, start, "start", (WIDER, 600), folder=work)
            for tab in TABS:
                if has_data(server, tab.plugin):
                    take(browser, work, f"{server}/{tab.address}", tab.name, (WIDER, tab.height))
                else:
                    print(f"{tab.name}: nothing of this run is shown there")


def take(
    browser: str, work: Path, address: str, name: str, size: tuple[int, int], folder: Path = FOLDER
) -> None:
    """Save what a browser shows at an address, with few colours."""
    raw = work / "raw.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={work / 'profile'}", f"--screenshot={raw}"]
    command += [f"--window-size={size[0]},{size[1]}"]
    command += ["--blink-settings=preferredColorScheme=1", "--virtual-time-budget=30000", address]
    subprocess.run(command, check=True, timeout=_SECONDS, capture_output=True)
    target = folder / f"{name}.png"
    with Image.open(raw) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(target, optimize=True)
    length = target.stat().st_size
    if length > LARGEST:
        sys.exit(f"{target} has {length:,} bytes, more than {LARGEST:,}: lower its height")
    print(f"{target.name}: {length:,} bytes")


@contextlib.contextmanager
def serving(work: Path) -> Iterator[str]:
    """Run `view --tensorboard` for as long as this block, and yield the address that it prints."""
    command = [sys.executable, "-m", "fno_telemetry_cli", "view", "--tensorboard", "demo/fno"]
    # A session of its own, so that what it starts ends with it.
    server = subprocess.Popen(
        command,
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if "http://" in line)
        yield line[line.index("http://") :].strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


def has_data(server: str, plugin: str) -> bool:
    """Whether the server has anything for a plugin; it may still be reading."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(20):
        with opener.open(f"{server}/data/plugins_listing", timeout=10) as answer:
            if json.load(answer).get(plugin, {}).get("enabled"):
                return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    main()
