"""Promises of CONTRIBUTING about files that no code reads: constraints, changelog, decisions, pre-commit."""

import datetime
import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fno_telemetry as ft
from support.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def pinned() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def required(requirements: Iterable[str]) -> set[str]:
    """Return the names of everything that these requirements install, extras included."""
    todo = [(Requirement(line), "") for line in requirements]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement, extra_of_parent = todo.pop()
        marker = requirement.marker
        if marker is not None and not marker.evaluate({"extra": extra_of_parent}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                if name == PROJECT["name"]:
                    lines = PROJECT["optional-dependencies"].get(extra, PROJECT["dependencies"])
                else:
                    lines = requires(name) or []
                todo += [(Requirement(line), extra) for line in lines]
    return {name for name, _ in seen} - {PROJECT["name"]}


def test_constraints_pin_nothing_that_is_not_required() -> None:
    names = [canonicalize_name(line.split("==")[0]) for line in pinned()]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned())
    assert names[0] == "torch"
    assert len(set(names)) == len(names)
    assert set(names) - required(["fno-telemetry[dev]"]) == set()


def test_every_dependency_has_a_line_of_reason() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    reasons = text.split("## Dependencies\n")[1].split("\n## ")[0]
    named = {
        name
        for line in re.findall(r"^- (.*?)[:(]", reasons, re.MULTILINE)
        for name in re.findall(r"[\w-]+", line)
    }
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    asked = {Requirement(line).name for line in lines} - {PROJECT["name"], "types-jsonschema"}
    assert asked == named


def test_the_newest_release_in_the_changelog_is_the_version_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    releases = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings]
    if headings[0] == "[Unreleased]":
        del releases[0]
    assert all(releases)
    assert releases[0][1] == ft.__version__
    dates = [datetime.date.fromisoformat(release[2]) for release in releases]
    assert dates == sorted(dates, reverse=True)
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= set(SECTIONS)


def test_the_version_is_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    found = [
        path
        for folder in ("fno_telemetry", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if f'"{ft.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert found == [ROOT / "fno_telemetry" / "version.py"]


def test_decisions_are_dated_and_the_newest_is_last() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    first, *headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "Dependencies"
    dates = [datetime.date.fromisoformat(heading.split(": ")[0]) for heading in headings]
    assert dates == sorted(dates)


def test_pre_commit_runs_what_make_lint_runs_and_downloads_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (.*)", text) == ["local"]
    assert re.findall(r"entry: (.*)", text) == ["make lint"]
