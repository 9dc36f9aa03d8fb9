"""Pages of HTML as a test reads them: their tags, what they would load, and how a browser draws them."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "br", "link", "img", "input", "hr"}
ENDS_ITSELF = {"tr", "td", "th", "tbody", "li", "p", "thead"}
BROWSER = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")


class Page(HTMLParser):
    """A parsed page: its tags in order, ids, links, and texts by the tag that they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.misplaced: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open[-1] != tag and self.open[-1] in ENDS_ITSELF:
            self.open.pop()
        if not self.open or self.open.pop() != tag:
            self.misplaced.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def headings(self) -> list[str]:
        return [text for tag, text in self.texts if tag == "h2"]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]

    @property
    def text(self) -> str:
        return "\n".join(text for tag, text in self.texts if tag not in ("script", "style"))

    def loads(self) -> list[str]:
        """Return every address that a browser would fetch, or go to, but places in this page."""
        found = []
        for tag, attributes in self.tags:
            if tag in ("link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"):
                found.append(tag)
            for name, value in attributes.items():
                is_address = name in (
                    "src",
                    "href",
                    "xlink:href",
                    "srcset",
                    "action",
                    "data",
                    "poster",
                    "style",
                )
                if not is_address or not value or (name == "style" and "url(" not in value):
                    continue
                inside = value.startswith(("#", "data:image/png;base64,"))
                if not inside and not (name == "style" and re.fullmatch(r".*url\(#[\w-]+\).*", value)):
                    found.append(f"{tag} {name}={value[:60]}")
        return found


def take_picture(page: Path, picture: Path, width: int = 1000, height: int = 3000) -> None:
    """Let a browser draw a page, without a network."""
    browse(page, f"--screenshot={picture}", f"--window-size={width},{height}")


def read_after_scripts(page: Path) -> str:
    """Return the document after a browser has run its scripts."""
    return browse(page, "--dump-dom")


def browse(page: Path, *options: str) -> str:
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    # A proxy that nobody listens at: what a page would load, it cannot.
    command += ["--proxy-server=127.0.0.1:9", *options, page.absolute().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
