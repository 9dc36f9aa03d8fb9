"""Rules by name: the built-in ones and those of installed packages."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from fno_telemetry import plugins
from fno_telemetry.diagnosis.contract import Rule
from fno_telemetry.errors import OptionError, PluginNotFound


def load_rule(name: str) -> Rule:
    """Return the rule under the name by which it is installed; PluginNotFound says why it cannot be used."""
    loaded = plugins.load("rules", name)
    if not isinstance(loaded, Rule):
        raise PluginNotFound(
            f"{name!r} is a {type(loaded).__name__}, not a rule: put @fno_telemetry.diagnosis.rule(about=…) "
            "above the function"
        )
    return loaded if loaded.name == name else replace(loaded, name=name)


def find_page(name: str) -> str | None:
    """Return where the documentation explains a rule; None for a rule of another package."""
    return f"docs/rules.md#{name}" if name in plugins.RULES else None


def load_rules(names: Sequence[str] | None) -> tuple[list[Rule], dict[str, PluginNotFound]]:
    """Return the named rules, or all of them, and why installed ones cannot be used; a named one raises.

    OptionError where `names` are no list of names.
    """
    if names is not None:
        _check_names(names)
        return [load_rule(name) for name in dict.fromkeys(names)], {}
    rules: list[Rule] = []
    failures: dict[str, PluginNotFound] = {}
    for name in plugins.names("rules"):
        try:
            rules.append(load_rule(name))
        except PluginNotFound as error:
            failures[name] = error
    return rules, failures


def _check_names(names: object) -> None:
    if isinstance(names, str) or not isinstance(names, Collection):
        what = repr(names) if isinstance(names, str) else f"a {type(names).__name__}"
        raise OptionError(f"`rules` is {what}; expected a list of names of rules, such as ['dead_layer']")
    for name in names:
        if not isinstance(name, str):
            raise OptionError(
                f"`rules` holds a {type(name).__name__}; expected names of rules, such as 'dead_layer'"
            )
