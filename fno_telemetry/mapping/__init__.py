"""The map of a model: roles, axes and blocks, detected or given by hand."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
