"""Numbers and names as messages show them."""

from collections.abc import Sequence


def format_number(value: float) -> str:
    """Return three significant digits, integers as they are."""
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def format_percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.3g} %"


def join_names(names: Sequence[str]) -> str:
    """Return names separated by commas."""
    return ", ".join(names)
