"""The networks that can be built by name, one per module; each module names its `Architecture`."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
