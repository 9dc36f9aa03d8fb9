"""Numbers and lists as they stand in messages."""

from collections.abc import Sequence


def digits(value: float) -> str:
    """Return three significant digits, integers as they are."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.3g} %"


def listed(names: Sequence[str]) -> str:
    """Return names in a row."""
    return ", ".join(names)
