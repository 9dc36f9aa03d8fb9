"""The version of this package, kept where packaging tools can read it without importing anything."""

__version__ = "0.1.0"
