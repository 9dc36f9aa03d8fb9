"""Where the axes are of what is compared with a target."""

import pytest

from fno_telemetry.mapping.compared_layouts import KnownOutput, find_compared_layout
from fno_telemetry.statistics.activation import Layout

IMAGES = KnownOutput((12, 2, 32, 24), Layout(0, 1, (2, 3)))  # of two batches
LAST = KnownOutput((6, 32, 24, 1, 2), Layout(0, 3, (1, 2)))
LINES = KnownOutput((6, 3, 40), Layout(0, 1, (2,)))
FLAT = KnownOutput((6, 768, 1), Layout(0, 2, (1,), unflattened=((32, 24),)))


@pytest.mark.parametrize(
    ("shape", "outputs", "expected"),
    [
        # The output itself, also in a batch of another size.
        ((6, 2, 32, 24), [IMAGES], IMAGES.layout),
        ((5, 2, 32, 24), [IMAGES], IMAGES.layout),
        ((6, 32, 24, 1, 2), [IMAGES, LAST], LAST.layout),
        ((6, 768, 1), [FLAT], FLAT.layout),
        # Other channels.
        ((6, 1, 32, 24), [IMAGES], IMAGES.layout),
        # Complex from two channels, which are gone.
        ((6, 32, 24, 1), [LAST], Layout(0, 3, (1, 2))),
        ((6, 32, 24), [LAST], Layout(0, None, (1, 2))),
        # Channels moved.
        ((6, 32, 24, 2), [IMAGES], Layout(0, 3, (1, 2))),
        ((6, 40, 3), [LINES], Layout(0, 2, (1,))),
        # Cropped.
        ((6, 2, 28, 20), [IMAGES], IMAGES.layout),
        ((6, 600, 1), [FLAT], Layout(0, 2, (1,))),
        # Several outputs of which one fits.
        ((6, 3, 40), [IMAGES, LINES], LINES.layout),
        # Without samples.
        ((2, 32, 24), [IMAGES], Layout(None, 0, (1, 2))),
        # Nothing tells.
        ((6, 7), [IMAGES], None),
        ((), [IMAGES], None),
        ((6, 2, 32, 24), [], None),
        # Two runs of the same sizes are no answer.
        ((6, 32, 32, 32, 1), [KnownOutput((6, 1, 32, 32), Layout(0, 1, (2, 3)))], None),
    ],
)
def test_axes_are_those_of_the_output_that_it_is_most_like(shape, outputs, expected):
    assert find_compared_layout(shape, outputs, 6) == expected
