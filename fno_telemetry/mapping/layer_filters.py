"""Selects the modules to measure: by the patterns of the user, else by role."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fno_telemetry.errors import MapError
from fno_telemetry.mapping.model_map import ModelMap
from fno_telemetry.wording import find_near_names


def select_names(model_map: ModelMap, layers: Sequence[str], exclude: Sequence[str]) -> frozenset[str]:
    """Return the modules to measure: those that match `layers`, else all leaves and all with a role.

    Modules that match `exclude` are left out. Patterns are fnmatch patterns for the whole canonical path; `*`
    also matches dots. MapError if no module is left.
    """
    by_role = [m.name for m in model_map.modules if m.leaf or m.role != "other"]
    names = [m.name for m in model_map.modules]
    for argument, patterns in (("layers", layers), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = ", ".join(find_near_names(pattern, names, most=4, least_likeness=0))
                raise MapError(
                    f"`{argument}` {pattern!r} matches no module; near it: {near or 'there are no modules'}"
                )
    chosen = [name for name in names if _any(name, layers)] if layers else by_role
    kept = frozenset(name for name in chosen if not _any(name, exclude))
    if names and not kept:
        raise MapError(
            "`layers` and `exclude` leave no module to measure; `fno-telemetry map` shows what there is"
        )
    return kept


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
