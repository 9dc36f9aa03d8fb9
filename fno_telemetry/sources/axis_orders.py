"""Axis orders as one letter per axis: checking, choosing and applying them."""

import torch

from fno_telemetry.errors import InputError, OptionError

_WORDS = {
    "N": "samples",
    "C": "channels",
    "D": "depth",
    "H": "height",
    "W": "width",
    "L": "length",
    "T": "time",
}
LETTERS = "".join(_WORDS)
_DEFAULTS = {3: "NHW", 4: "NHWC"}
_SUGGESTIONS = {
    1: '`axes="L"` for one signal',
    2: '`axes="HW"` for one field, or `axes="NL"` for samples of one signal each',
    5: '`axes="NCDHW"` for volumes',
}


def check_order(order: str, where: str) -> str:
    """Return the order in capitals, or say which letter cannot be used (OptionError)."""
    letters = order.strip().upper()
    unknown = sorted({letter for letter in letters if letter not in LETTERS})
    repeated = sorted({letter for letter in letters if letters.count(letter) > 1})
    problem = ""
    if not letters:
        problem = "is empty"
    elif unknown:
        problem = f"has {', '.join(map(ascii, unknown))}, which names no axis"
    elif repeated:
        problem = f"has {', '.join(repeated)} more than once"
    elif not set(letters) - set("NC"):
        problem = "names no axis of space or time"
    if problem:
        raise OptionError(
            f"`axes` {order!a} for {where} {problem}; use each of "
            f"{', '.join(LETTERS)} at most once, for example NHW or NCDHW."
        )
    return letters


def choose_order(shape: tuple[int, ...], order: str | None, where: str) -> str:
    """One letter per axis of a stored array of this shape; an explicit order always wins.

    Without one, 3 axes are NHW and 4 are NHWC. A shape that looks like another order is refused, because the
    wrong axis taken for samples gives numbers that look right.
    """
    rank = len(shape)
    if rank == 0:
        raise InputError(f"{where}: holds a single number; save an array with at least one axis of space.")
    if order is not None and len(order) != rank:
        raise OptionError(
            f"`axes` {order} names {len(order)} axes, but {where} has {rank}: {shape}; "
            f"give one letter per axis."
        )
    letters = order or _DEFAULTS.get(rank, "?" * rank)
    _refuse_empty(shape, letters, where)
    if order is not None:
        return order
    if rank not in _DEFAULTS:
        hint = _SUGGESTIONS.get(rank, "`axes` with one letter per axis")
        raise InputError(f"{where}: shape {shape} has no usual order of axes; add {hint}.")
    rivals = _lookalikes(shape)
    if rivals:
        options = " or ".join(f'`axes="{rival}"`' for rival in rivals)
        raise InputError(
            f"{where}: shape {shape} looks like {' or '.join(rivals)}, not {letters}; add {options}, "
            f'or `axes="{letters}"` if that is really right.'
        )
    return letters


def _refuse_empty(shape: tuple[int, ...], letters: str, where: str) -> None:
    for position, (size, letter) in enumerate(zip(shape, letters, strict=True)):
        if size == 0 and letter == "N":
            raise InputError(f"{where}: holds no samples, its shape is {shape}; save at least one.")
        if size == 0:
            name = f"axis {position}" if letter == "?" else f"axis {letter}"
            raise InputError(f"{where}: {name} has size zero, its shape is {shape}; save a non-empty array.")


def _lookalikes(shape: tuple[int, ...]) -> list[str]:
    """Orders that explain equal neighbouring sizes better than the default: fields are mostly square."""
    if len(shape) == 3:
        first, second, last = shape
        return ["HWN"] if first == second != last else []
    first, second, third, last = shape
    rivals = []
    # A height of one in NHWC is far more often the single channel of NCHW.
    if third == last != second or (second == 1 and third > 1 and last > 1):
        rivals.append("NCHW")
    if first == second != third:
        rivals.append("HWNC")
    return rivals


def describe_axes(letters: str) -> str:
    """Return the axes of what `arrange` makes of an array: `samples, channels, height, width` of NHW."""
    return ", ".join(_WORDS[letter] for letter in ("N", "C", *(each for each in letters if each not in "NC")))


def sample_axis(letters: str) -> int | None:
    """Position of N, or None when the whole array is one sample."""
    return letters.index("N") if "N" in letters else None


def arrange(values: torch.Tensor, letters: str) -> torch.Tensor:
    """Reorder axes to N, C and then space in the order given; absent N or C become axes of size 1."""
    leading = [letter for letter in "NC" if letter in letters]
    order = leading + [letter for letter in letters if letter not in "NC"]
    result = values.permute([letters.index(letter) for letter in order])
    if "N" not in letters:
        result = result.unsqueeze(0)
    if "C" not in letters:
        result = result.unsqueeze(1)
    return result.contiguous()
