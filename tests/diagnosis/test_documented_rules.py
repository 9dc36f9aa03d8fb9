"""`docs/diagnosis.md` names every built-in rule, and its own rule runs as printed."""

import re
import runpy
from pathlib import Path

from fno_telemetry import plugins
from fno_telemetry.diagnosis import TOPICS, Rule, find_page

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "diagnosis.md").read_text(encoding="utf-8")


def test_every_built_in_rule_and_every_topic_is_documented():
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    assert [name for name in plugins.RULES if f"`{name}`" not in table] == []
    assert [topic for topic in TOPICS if f"`{topic}`" not in TEXT.partition("A rule of your own")[2]] == []


def test_the_page_of_rules_is_what_the_docstrings_say():
    page = DOCS / "rules.md"
    namespace = runpy.run_path(str(DOCS / "generators" / "rules_page.py"))
    assert page.read_text(encoding="utf-8") == namespace["text"](), "run `make docs-pages`"


def test_every_rule_links_to_its_section():
    lines = (DOCS / "rules.md").read_text(encoding="utf-8").splitlines()
    for name in plugins.RULES:
        path, _, section = str(find_page(name)).partition("#")
        assert (path, f"## {section}" in lines) == ("docs/rules.md", True)
    assert find_page("a_rule_of_another_package") is None


def test_the_rule_of_your_own_runs_as_printed():
    [block] = re.findall(r"```python\n(.*?)```", TEXT.partition("## A rule of your own")[2], flags=re.S)
    names: dict[str, object] = {}
    exec(compile(block, "docs/diagnosis.md", "exec"), names)
    assert isinstance(names["loud_layer"], Rule)
