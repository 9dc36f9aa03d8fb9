"""The W&B sink: into a run of the caller, or into runs of its own."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
