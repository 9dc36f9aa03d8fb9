"""Where records go: one sink a file, each fed the same finished record."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
