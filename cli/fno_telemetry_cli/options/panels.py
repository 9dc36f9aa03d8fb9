"""How `--help` groups options: those that most people need first, in the order in which they are needed."""

from typing import Any

COMMON, OTHER = "Common options", "Other options"
_PANEL = "rich_help_panel"  # where typer keeps the name

MOST_NEEDED = {
    "capture": (
        *("--input", "--output", "--architecture", "--model", "--checkpoint", "--batch-size"),
        *("--max-samples", "--device", "--sink", "--html", "--diagnose", "--force"),
    ),
    "view": ("--layers", "--sort", "--top", "--all", "--html", "--tensorboard", "--wandb"),
    "compare": ("--all", "--group", "--html", "--fail-on"),
    "diagnose": ("--baseline", "--test", "--all", "--explain", "--html", "--fail-on"),
    "merge": ("--output", "--sink", "--force"),
    "map": ("--input", "--architecture", "--model", "--checkpoint", "--output", "--force"),
    "plugins": ("--json",),
}
"""Command -> the options of its first panel."""


def arrange(command: str, parameters: list[Any]) -> list[Any]:
    """Put the options of a command into panels, the common ones first; return them in this order."""
    wanted = MOST_NEEDED.get(command, ())
    common: dict[str, Any] = {}
    rest = []
    for parameter in parameters:
        if parameter.param_type_name != "option":
            rest.append(parameter)
        elif found := next((option for option in parameter.opts if option in wanted), None):
            setattr(parameter, _PANEL, COMMON)
            common[found] = parameter
        else:
            if getattr(parameter, _PANEL, None) is None:
                setattr(parameter, _PANEL, OTHER)
            rest.append(parameter)
    last = [parameter for parameter in rest if getattr(parameter, _PANEL, None) == OTHER]
    middle = [parameter for parameter in rest if parameter not in last]
    return [*(common[option] for option in wanted if option in common), *middle, *last]
