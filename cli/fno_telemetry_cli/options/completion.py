"""What the shell completes besides the names of options."""

from collections.abc import Callable

from fno_telemetry import plugins


def complete_names(kind: str) -> Callable[[str], list[str]]:
    """Return what completes the names of this kind of plug-in, also at the end of a comma list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in plugins.names(kind) if name.startswith(last)]

    return complete
