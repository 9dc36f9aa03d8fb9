"""Numbers and names as tables and messages show them."""

import math
import re
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

_NEAR, _FEW, _MOST = 3, 16, 40  # names that a message lists: near ones, next to near ones, without near ones
_PART = 3  # letters of a name that is near because another one contains it
_DIGITS = 3
_MOST_DIGITS = 6
_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
_NOT_THE_USERS = {Path(__file__).parent, *(Path(sysconfig.get_path(name)) for name in _LIBRARIES)}
_ROUNDING_ERROR = 1e-10  # sums over the elements of a tensor are not more exact
# Fillers, joiners and variation selectors: nobody sees them, and `str.isprintable` takes them for printable.
_IN_ASCII = str.maketrans("×–—…→·‘’“”─²³", "x--.>|''\"\"-23")
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def is_printable(text: str) -> bool:
    """Whether every character is seen where it stands: no control, line break, direction mark or filler."""
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)


def to_printable(text: str) -> str:
    """Return the text as one printable line, whatever a file, a model or another package put into it.

    A character that would move a cursor, change the direction of reading or end a line, and one that nobody
    sees, becomes "?". Half of a surrogate pair, which a name from a file may hold and no terminal and no
    dashboard can show, is written out.
    """
    if is_printable(text):
        return text
    written = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if is_printable(letter) else "?" for letter in written)


def to_one_line(text: str, longest: int | None = None) -> str:
    """Return `to_printable` with single spaces for all white space, cut to `longest` characters if given."""
    line = to_printable(" ".join(text.split()))
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def to_encodable(text: str, encoding: str) -> str:
    """Return a text with the signs that tables and messages use in ASCII, where the encoding lacks some."""
    if text.isascii() or encoding.lower().startswith("utf"):
        return text
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return text.translate(_IN_ASCII)
    return text


def describe_error(error: BaseException) -> str:
    """Return the class and the message of an error that a user's code raised, and where it did."""
    places = [
        place
        for place in traceback.extract_tb(error.__traceback__)
        if _NOT_THE_USERS.isdisjoint(Path(place.filename).parents)
    ]
    where = f" ({Path(places[-1].filename).name}, line {places[-1].lineno})" if places else ""
    return f"{type(error).__name__}: {error}{where}"


def format_number(value: float, digits: int = _DIGITS, keeps_one: bool = True) -> str:
    """Return that many significant digits, integers as they are; never "1" for a number that is not 1.

    Numbers that would be rounded to 1 get as many digits as show the difference, six at most: 0.99999,
    1.0004. What is even nearer to 1 is 0.999999 or 1.000001, unless it is a rounding error (1e-10) away.
    Without `keeps_one`, as for a ratio whose value 1 means nothing in particular, they are 1.
    """
    if isinstance(value, int):
        return str(value)
    return _format(value, 1, digits) if keeps_one else f"{value or 0.0:.{digits}g}"


def format_percent(share: float) -> str:
    """Return a share in percent, to three significant digits; never "100 %" for less than all of something.

    The rules of `format_number` hold: 99.99 %, or 99.9999 % for any share that is nearer to 1.
    """
    return f"{_format(100 * share, 100, _DIGITS)} %"


def join_names(names: Sequence[str], most: int | None = None) -> str:
    """Return names separated by commas; of more than `most`, the first ones and how many more there are."""
    if most is None or len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def find_near_names(
    name: str, known: Iterable[str], most: int = _NEAR, least_likeness: float = 0.6
) -> list[str]:
    """Return the known names most like this one, the nearest first, whatever is in capitals.

    `least_likeness` is the cutoff of `difflib.get_close_matches`, from 0 to 1. A name that contains this one,
    or is contained in it, is near too.
    """
    spelled: dict[str, list[str]] = {}
    for each in known:
        spelled.setdefault(each.lower(), []).append(each)
    wanted = name.lower()
    near = get_close_matches(wanted, spelled, most, least_likeness)
    parts = [
        each
        for each in spelled
        if min(len(wanted), len(each)) >= _PART and (wanted in each or each in wanted)
    ]
    found = [each for lower in dict.fromkeys((*near, *parts)) for each in spelled[lower]]
    return found[:most]


def hint_at_names(name: str, known: Iterable[str], most: int = _MOST) -> str:
    """Return how a message about an unknown name ends: the names near it, and all names there are.

    "Did you mean dead_layer? Known: dead_layer, trend." A long list is left out where names are near, else
    cut to `most`.
    """
    names = [each if is_printable(each) else ascii(each) for each in known]
    if not names:
        return "There are none."
    near = find_near_names(name, names)
    question = f"Did you mean {' or '.join(near)}?" if near else ""
    if near and len(names) > _FEW:
        return question
    return f"{question} Known: {join_names(names, most)}.".strip()


def _format(value: float, whole: int, digits: int) -> str:
    """Return the digits of a number, more of them if these are those of `whole` and the number is another."""
    text = f"{value or 0.0:.{digits}g}"  # no minus in front of a zero
    beyond = abs(value) / whole - 1
    if abs(float(text)) != whole or abs(beyond) <= _ROUNDING_ERROR:
        return text
    nearest = math.copysign(whole * (1 + math.copysign(10.0**-_MOST_DIGITS, beyond)), value)
    # Of a number above `whole`, the first digit is the only one that says nothing.
    most = _MOST_DIGITS + (beyond > 0)
    found = (f"{value:.{more}g}" for more in range(digits + 1, most + 1))
    return next((text for text in found if abs(float(text)) != whole), f"{nearest:.{most}g}")
