"""Rows of values in blocks whose float64 copies fit in the cache."""

from collections.abc import Iterator

AT_A_TIME = 1 << 16
"""The elements of a block."""


def cut_rows(shape: tuple[int, ...], elements: int = AT_A_TIME) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows and of columns that cover (rows, values): whole rows where these are short."""
    number, points = shape
    height, width = max(elements // max(points, 1), 1), min(elements, points)
    for top in range(0, number, height):
        for left in range(0, points, width):
            yield slice(top, top + height), slice(left, left + width)
