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
from fno_telemetry import report
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


@pytest.mark.parametrize("page", ["help", "report_format"])
def test_a_page_made_from_the_code_is_what_its_generator_writes(page: str) -> None:
    made = runpy.run_path(str(DOCS / "generators" / f"{page}_page.py"))["text"]()
    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == made, "run `make docs-pages`"


def test_every_key_of_the_schema_says_what_it_is() -> None:
    schema = report.json_schema()
    inside = schema["properties"]["training"]
    for name, node in [("report", schema), ("training", inside), *schema["$defs"].items()]:
        if name != "stats":  # whose meanings are the titles of the quantities
            missing = [
                key for key, value in node.get("properties", {}).items() if not value.get("description")
            ]
            assert missing == [], name


def test_links_to_places_in_pages_have_a_place_to_go_to(site: Path) -> None:
    texts = {page.name: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    ids = {name: set(re.findall(r'\bid="?([^"\s>]+)', text)) for name, text in texts.items()}
    for name, text in texts.items():
        for target, place in re.findall(r'href="?([\w./]*\.html)?#([^"\s>]+)', text):
            assert place in ids[(target or name).removeprefix("./")], f"{name}: {target}#{place}"
