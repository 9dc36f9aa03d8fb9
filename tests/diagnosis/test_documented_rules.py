"""`docs/diagnosis.md` names every built-in rule, and its own rule runs as printed."""

import re
from pathlib import Path

from fno_telemetry import plugins
from fno_telemetry.diagnosis import TOPICS, Rule

TEXT = Path(__file__).parents[2].joinpath("docs", "diagnosis.md").read_text(encoding="utf-8")


def test_every_built_in_rule_and_every_topic_is_documented():
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    assert [name for name in plugins.RULES if f"`{name}`" not in table] == []
    assert [topic for topic in TOPICS if f"`{topic}`" not in TEXT.partition("A rule of your own")[2]] == []


def test_the_rule_of_your_own_runs_as_printed():
    [block] = re.findall(r"```python\n(.*?)```", TEXT.partition("## A rule of your own")[2], flags=re.S)
    names: dict[str, object] = {}
    exec(compile(block, "docs/diagnosis.md", "exec"), names)
    assert isinstance(names["loud_layer"], Rule)
