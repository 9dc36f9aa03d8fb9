"""Every error that this package raises on purpose.

    TelemetryError
    ├── InputError            an array file, or the batches, cannot be used
    ├── ModelError            a network cannot be built or run
    ├── CheckpointError       weights cannot be read or do not fit
    ├── MapError              a model map file is wrong, or a filter matches nothing
    ├── OptionError           an option or argument has a value that cannot be used
    ├── ReportError           a report cannot be read or written
    ├── PluginNotFound        no sink, statistic or architecture has this name
    ├── NameNotFound          a record has no module, block or number of this name; a KeyError
    └── SinkUnavailable       a sink cannot be opened
        └── MissingExtra      because an optional package is not installed; also of pictures and pages

Each message is one printable line: what was seen, what was expected, what to do.
"""

from fno_telemetry.wording import to_one_line


class TelemetryError(Exception):
    """Base of all errors raised on purpose; its text is one line of advice."""

    def __str__(self) -> str:
        return to_one_line(super().__str__())


class InputError(TelemetryError):
    """An array file, or the batches made from it, cannot be used."""


class ModelError(TelemetryError):
    """A network cannot be built, or its forward fails."""


class CheckpointError(TelemetryError):
    """Weights cannot be read, or do not fit the network."""


class MapError(TelemetryError):
    """A model map file is wrong, or a layer filter matches nothing."""


class OptionError(TelemetryError):
    """An option or argument has a value that cannot be used."""


class ReportError(TelemetryError):
    """A report cannot be read or written."""


class PluginNotFound(TelemetryError):
    """No sink, statistic or architecture is known by this name."""


class NameNotFound(TelemetryError, KeyError):
    """A record has no module, block or number of this name; the text has what there is instead."""

    def __str__(self) -> str:
        # That of KeyError puts its message into quotes.
        return to_one_line(Exception.__str__(self))


class SinkUnavailable(TelemetryError):
    """A sink cannot be opened; the text says what to do."""


class MissingExtra(SinkUnavailable):
    """A sink, or what else was asked for, needs an optional package that is not installed."""
