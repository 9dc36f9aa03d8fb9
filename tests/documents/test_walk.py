"""CONTRIBUTING's way to add a statistic, sink, architecture, rule or command, walked in a copy of the clone.

The examples of docs/extending.md are added as it says: one file, one line, and a row in a document. A wrong
variant of each is added too. The suites that everybody runs must pass the first and fail the second.
"""

import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from support import ready_python
from support.documents import ROOT

COPIED = ("fno_telemetry", "cli", "tests", "examples", "docs")
SECONDS = 90

STEP = re.compile(
    r"^File `(?P<file>[^`]+)`:\n\n```python\n(?P<source>.*?)^```\n\n"
    r"Line in `(?P<table>\w+)` of `(?P<home>[^`]+)`[^`]*:\n\n```\n(?P<line>.*?)^```\n",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Addition:
    """What docs/extending.md adds for one kind: a file, and a line in a table of another file."""

    name: str
    file: str
    source: str
    table: str
    home: str
    line: str

    def wrong(self, old: str, new: str) -> "Addition":
        """Return a variant under another name, with the one place `old` changed."""
        assert self.source.count(old) == 1, f"{old!r} is not once in the example of {self.name}"
        changed = self.source.replace(old, new)
        short, long = (self.name, self.name.title().replace("_", ""))
        texts = [
            re.sub(rf"\b{short}\b", f"wrong_{short}", text).replace(long, f"Wrong{long}")
            for text in (self.file, changed, self.line)
        ]
        return Addition(f"wrong_{short}", texts[0], texts[1], self.table, self.home, texts[2])


def additions() -> dict[str, Addition]:
    """Return what docs/extending.md adds, by the heading of its section."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        title = section.split("\n", 1)[0]
        step = STEP.search(section)
        if step is not None:
            found[title.removeprefix("A ").removeprefix("An ")] = Addition(
                name=Path(step["file"]).stem, **step.groupdict()
            )
    return found


def last_line_of_table(text: str, table: str) -> int:
    """Return where the closing bracket of a table stands that is assigned at the top of a module."""
    start = re.search(rf"^{table}\b.*[({{\[]$", text, re.MULTILINE)
    assert start is not None, f"no table {table}"
    return re.compile(r"^[)}\]]", re.MULTILINE).search(text, start.end()).start()


def add(clone: Path, addition: Addition) -> None:
    """Add one file, and one line."""
    file = clone / addition.file
    assert not file.exists()
    file.write_text(addition.source, encoding="utf-8")
    home = clone / addition.home
    text = home.read_text(encoding="utf-8")
    end = last_line_of_table(text, addition.table)
    home.write_text(text[:end] + addition.line + text[end:], encoding="utf-8")


def document(clone: Path, kind: str, name: str) -> None:
    """Add a row for it to the document that CONTRIBUTING names."""
    name_of, before = DOCUMENTED[kind]
    path = clone / "docs" / name_of
    lines = path.read_text(encoding="utf-8").splitlines()
    place = max(number for number, line in enumerate(lines) if line.startswith(before))
    columns = lines[place].replace("\\|", "").count("|") - 1
    lines.insert(place + 1, f"| `{name}` |" + " an example |" * (columns - 1))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(clone: Path, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a Python program in the clone, which imports nothing of the original."""
    found = os.pathsep.join(str(clone / part) for part in ("", "cli", "tests", "tests/support"))
    return subprocess.run(
        [ready_python.python(), *command],
        cwd=folder or clone,
        env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# Per kind: a text of the example, what breaks the contract in its place, and what the tester then says.
WRONG = {
    "statistic": ("MergedBy(torch.maximum)", "MergedBy(lambda first, second: first)", "in batches of"),
    "sink": (
        "        line = json.dumps(",
        "        if record.step == 2000:\n            return\n        line = json.dumps(",
        "lost the record of step 2000",
    ),
    "architecture": (
        "if dict(shapes) == own else None",
        "if False else None",
        "does not recognise its own network",
    ),
    "rule": ("if rms < least_rms:", "if rms < 1e6:", "fires on a healthy record|fires on its example"),
    "command": ("Example: fno-telemetry steps out", "It takes a folder.", "Example: fno-telemetry"),
}
SUITES = {
    "statistic": "tests/statistics/test_statistic_contract.py",
    "sink": "tests/sinks/test_sink_contract.py",
    "architecture": "tests/architectures/test_architecture_contract.py",
    "rule": "tests/diagnosis/test_rule_contract.py",
    "command": "tests/cli/test_help_and_completion.py",
}
# Per kind: the document, and how the rows of its table start.
DOCUMENTED = {
    "statistic": ("statistics.md", "| `gain` |"),
    "sink": ("command.md", "| `wandb` |"),
    "architecture": ("command.md", "| `wandb` |"),
    "rule": ("diagnosis.md", "| `trend` |"),
    "command": ("command.md", "| `plugins` |"),
}
KINDS = list(WRONG)


@dataclass(frozen=True)
class Walk:
    """The clone after the walk; by the name of an addition, the tests that passed and how others failed."""

    clone: Path
    passed: Mapping[str, list[str]]
    failed: Mapping[str, list[str]]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    clone = tmp_path_factory.mktemp("clone")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / file, clone / file)
    added = []
    for kind in KINDS:
        right = additions()[kind]
        for addition in (right, right.wrong(*WRONG[kind][:2])):
            add(clone, addition)
            document(clone, kind, addition.name)
            added.append(addition.name)
    report = clone / "report.xml"
    suites = [*(SUITES[kind] for kind in KINDS), "tests/documents/test_completeness.py"]
    chosen = " or ".join([*(additions()[kind].name for kind in KINDS), "completeness"])
    done = run(
        clone, "-m", "pytest", "-q", *suites, "-k", chosen, f"--junitxml={report}", "-p", "no:cacheprovider"
    )
    assert report.exists(), done.stdout + done.stderr
    passed: dict[str, list[str]] = {name: [] for name in added}
    failed: dict[str, list[str]] = {name: [] for name in added}
    for case in ET.parse(report).iter("testcase"):
        failures = [*case.iter("failure"), *case.iter("error")]
        for name in added:
            if re.search(rf"(?<![a-z_]){name}(?![a-z_])", case.get("name")):
                passed[name] += [] if failures else [case.get("name")]
                failed[name] += [f"{case.get('name')}: {failure.text}" for failure in failures]
    return Walk(clone, passed, failed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_as_the_document_says_passes(walk: Walk, kind: str) -> None:
    name = additions()[kind].name
    assert walk.failed[name] == []
    assert walk.passed[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_one_fails_without_a_test_of_its_own(walk: Walk, kind: str) -> None:
    failures = walk.failed[f"wrong_{additions()[kind].name}"]
    assert any(re.search(WRONG[kind][2], failure) for failure in failures), failures


# One process for several commands: each starts with its number in a line of its own.
COMMANDS = """
import json, sys
from fno_telemetry_cli.app import main
for number, arguments in enumerate(json.loads(sys.argv[1])):
    print(f"<{number}>", flush=True)
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments
    sys.stdout.flush()
"""


def test_what_is_added_is_shown_everywhere(walk: Walk, tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", diffraction=np.random.default_rng(0).random((4, 16, 16), np.float32))
    statistic, sink, architecture, rule, command = (additions()[kind].name for kind in KINDS)
    (tmp_path / "limits.toml").write_text(f"[diagnose.{rule}]\nleast_rms = 1e9\n")
    capture = [
        "capture",
        "--input",
        "train.npz",
        "--architecture",
        architecture,
        "--sink",
        f"tensorboard,{sink}",
    ]
    commands = [
        ["plugins"],
        [*capture, "--output", "before", "--seed", "1"],
        [*capture, "--output", "after", "--seed", "2"],
        ["view", "before"],
        ["compare", "before", "after", "--json", "--fail-on", "never"],
        ["diagnose", "before", "--thresholds", "limits.toml"],
        [command, "before"],
    ]
    done = run(walk.clone, "-c", COMMANDS, json.dumps(commands), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listed, _, _, viewed, compared, diagnosed, own = re.split(r"^<\d>\n", done.stdout, flags=re.MULTILINE)[1:]
    for name in (statistic, sink, architecture, rule):
        assert name in listed
    report = json.loads((tmp_path / "before" / "activation_report.json").read_text())
    assert report["modules"][0]["stats"][statistic] > 0
    assert "magnitude" in viewed
    assert statistic in compared
    assert rule in diagnosed
    assert own
    key = f"{statistic}/0"
    assert key in (tmp_path / "before" / "numbers.jsonl").read_text()
    [events] = (tmp_path / "before").rglob("events.out.tfevents.*")
    assert key.encode() in events.read_bytes()
