"""How testers say that a promise is broken: by an AssertionError of one line, also under `python -O`."""

import contextlib
from collections.abc import Iterator


def require(condition: object, message: str) -> None:
    """Raise AssertionError with this message unless the condition is true."""
    if not condition:
        raise AssertionError(message)


@contextlib.contextmanager
def calling(what: str) -> Iterator[None]:
    """Turn whatever the block raises into an AssertionError that says that `what` raised it."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{what} raised {type(error).__name__}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split())
