"""`make look` opens the page of `make demo`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.documents import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def look(folder: Path, browser: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", "-f", str(ROOT / "Makefile"), "look"],
        cwd=folder,
        env=os.environ | {"BROWSER": browser},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_looking_opens_the_page_of_the_demo_or_says_how_to_get_it(tmp_path: Path) -> None:
    before = look(tmp_path, "echo %s")
    assert before.returncode == 2
    assert before.stdout.strip() == "no demo/page.html yet: run make demo first"
    folder = tmp_path / "a b"
    page = folder / "demo" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_text("<!doctype html>")
    assert look(folder, "echo %s").stdout.splitlines() == [str(page), page.as_uri()]
    nowhere = look(folder, "no-such-browser-here %s")
    assert str(page) in nowhere.stdout


def test_the_demo_writes_that_page() -> None:
    recipe = (
        (ROOT / "Makefile").read_text(encoding="utf-8").split("\ndemo: $(VENV)/installed")[1].split("\n\n")[0]
    )
    assert "--html $(DEMO)/page.html" in recipe
