"""The site of the documentation builds without a warning, whole, and loads nothing from elsewhere."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fno_telemetry as ft
from support.documents import ROOT

DOCS = ROOT / "docs"
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("zensical", reason="the site is built with the extra docs")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    (folder / "mkdocs.yml").write_text(CONFIG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # the docstrings are read from the sources
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_is_in_the_navigation_and_in_the_site(site: Path) -> None:
    pages = {path.name for path in DOCS.glob("*.md")}
    assert pages == set(re.findall(r"(\w+\.md)\s*$", CONFIG, re.MULTILINE))
    assert {f"{Path(page).stem}.html" for page in pages} <= {path.name for path in site.glob("*.html")}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*(?:src|href)=\"?([^\s\">]+)", text)
        assert [one for one in loaded if re.match(r"(https?:)?//", one)] == [], page.name


def test_the_python_reference_has_every_public_name(site: Path) -> None:
    named = re.findall(r"^::: fno_telemetry\.(\w+)$", (DOCS / "python.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(ft.__all__) - {"__version__", "integrations"})
    page = (site / "python.html").read_text(encoding="utf-8")
    assert all(f'id="fno_telemetry.{name}"' in page for name in named)


def test_the_page_of_help_texts_is_what_the_commands_print() -> None:
    made = runpy.run_path(str(DOCS / "generators" / "help_page.py"))["text"]()
    assert (DOCS / "help.md").read_text(encoding="utf-8") == made, "run `make docs-pages`"
