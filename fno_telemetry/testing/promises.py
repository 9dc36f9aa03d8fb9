"""How testers say that a promise is broken: by an AssertionError of one line, also under `python -O`."""

import contextlib
from collections.abc import Iterator


def require(condition: object, message: str) -> None:
    """Raise AssertionError with this message, in one line, unless the condition is true."""
    if not condition:
        raise AssertionError(" ".join(message.split()))


@contextlib.contextmanager
def calling(what: str, *, when: str = "", expected: str = "") -> Iterator[None]:
    """Turn whatever the block raises into an AssertionError that says that `what` raised it.

    All code of a plug-in is called in such a block. `when` says when it does, and `expected` at the end
    what was expected instead. A KeyboardInterrupt stays what it is.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what test frameworks raise, are no Exception
        message = f"{what} raised {type(error).__name__}{when and ' ' + when}: {one_line(error)}"
        if expected:
            message += f"; {expected}"
        raise AssertionError(" ".join(message.split())) from error


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split())
