"""Canonical module paths: the dotted names that stay the same whatever a model was wrapped in.

One list of wrapper names serves module paths and checkpoint keys alike.
"""

from collections import Counter
from collections.abc import Iterable

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Names that compilers and parallel wrappers insert anywhere in a path; they are always dropped."""

SOLE_CHILDREN = frozenset({"model", "generator", "net"})
"""Names that are dropped only in front, and only when nothing else stands beside them."""


def without_wrappers(path: str) -> str:
    """Return `path` with the names of wrappers dropped wherever they stand."""
    return ".".join(part for part in path.split(".") if part not in WRAPPERS)


def canonical_names(paths: Iterable[str]) -> dict[str, str]:
    """Map every dotted path to its canonical form.

    Wrapper names are dropped anywhere; `model`, `generator` and `net` only as a leading sole child.
    Paths whose canonical forms would collide keep their full path. The empty path (the root) stays empty, and
    what is left of a wrapper around everything is the root too.
    """
    full = list(dict.fromkeys(paths))
    short = {path: without_wrappers(path) for path in full}
    while True:
        leads = {name.partition(".")[0] for name in short.values() if name}
        # A sole child that is a leaf is the network itself, so its name is all that is left to show.
        if len(leads) != 1 or not leads <= SOLE_CHILDREN or not any("." in name for name in short.values()):
            break
        short = {path: name.partition(".")[2] for path, name in short.items()}
    while True:
        taken = Counter(name for name in short.values() if name)
        colliding = [path for path, name in short.items() if taken[name] > 1 and name != path]
        # A full path may in turn be the short form of another one.
        if not colliding:
            return short
        short |= {path: path for path in colliding}
