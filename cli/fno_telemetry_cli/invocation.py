"""The command line as the user typed it."""

import re
import shlex
import sys
from dataclasses import dataclass, field

_SECRET = re.compile(r"(?i)(.*(?:^|[_.-])(?:token|secret|passw(?:or)?d|api_?key|credentials?)=).+", re.DOTALL)


@dataclass
class Invocation:
    """The arguments as the user typed them, and the options that are read before the others are parsed."""

    arguments: list[str] = field(default_factory=lambda: sys.argv[1:])
    json_by_config: bool = False

    @property
    def as_json(self) -> bool:
        """Whether errors are printed as JSON too."""
        return self.json_by_config or "--json" in self.arguments

    @property
    def command(self) -> str:
        """The line to type again, without what looks like a secret (`--set api_key=…`)."""
        return shlex.join(["fno-telemetry", *map(without_secret, self.arguments)])


def without_secret(setting: str) -> str:
    """Return a `key=value` text with the value masked where the key names a secret."""
    return _SECRET.sub(r"\1***", setting)
