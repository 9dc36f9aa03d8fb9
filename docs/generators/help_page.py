"""Writes docs/help.md, what `fno-telemetry COMMAND --help` prints for every command.

    python docs/generators/help_page.py

A test fails where the page is not what this would write.
"""

import os
import subprocess
import sys
from pathlib import Path

from fno_telemetry_cli.app import COMMANDS

PAGE = Path(__file__).parents[1] / "help.md"

_HEAD = """# What `--help` prints

`make docs-pages` writes this page. [command.md](command.md) says what each option is for, and gives the exit
codes.
"""
_WIDTH = 110


def main() -> None:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """Return the page."""
    sections = [_HEAD, *(_section([name]) for name in COMMANDS)]
    return "\n".join(sections)


def _section(command: list[str]) -> str:
    name = " ".join(["fno-telemetry", *command])
    return f"## {name}\n\n```\n{_help_of(command)}\n```\n"


def _help_of(command: list[str]) -> str:
    """Return what a user sees in a terminal of a fixed width, without colours."""
    plain = {
        key: value for key, value in os.environ.items() if not key.startswith(("FORCE_COLOR", "GITHUB_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "fno_telemetry_cli", *command, "--help"],
        env=plain | {"COLUMNS": str(_WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines())


if __name__ == "__main__":
    main()
