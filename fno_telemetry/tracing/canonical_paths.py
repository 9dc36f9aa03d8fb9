"""Canonical module paths: dotted names that do not depend on the wrappers around a model.

One list of wrapper names serves module paths and checkpoint keys alike.
"""

from collections import Counter
from collections.abc import Iterable

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Names that compilers and parallel wrappers insert anywhere in a path; they are always dropped."""

SOLE_CHILDREN = frozenset({"model", "generator", "net"})
"""Names that are dropped only at the start of a path, and only if they are the sole child."""


def without_wrappers(path: str) -> str:
    """Return `path` without the names of wrappers, anywhere in it."""
    return ".".join(part for part in path.split(".") if part not in WRAPPERS)


def canonical_names(paths: Iterable[str]) -> dict[str, str]:
    """Map every dotted path to its canonical form.

    Wrapper names are dropped anywhere; `model`, `generator` and `net` only as a leading sole child.
    Paths whose canonical forms would collide keep their full path. The empty path (the root) stays empty; the
    path of a wrapper around the whole model becomes empty too.
    """
    full = list(dict.fromkeys(paths))
    short = {path: without_wrappers(path) for path in full}
    while True:
        leads = {name.partition(".")[0] for name in short.values() if name}
        # A sole child that is a leaf is the whole network, so its name is kept.
        if len(leads) != 1 or not leads <= SOLE_CHILDREN or not any("." in name for name in short.values()):
            break
        short = {path: name.partition(".")[2] for path, name in short.items()}
    while True:
        taken = Counter(name for name in short.values() if name)
        colliding = [path for path, name in short.items() if taken[name] > 1 and name != path]
        # A full path may also be the short form of another path.
        if not colliding:
            return short
        short |= {path: path for path in colliding}
