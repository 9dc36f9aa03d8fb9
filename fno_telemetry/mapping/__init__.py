"""What each module of a model is: its role, its axes, its blocks, and how to state them by hand."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
