"""Says what is wrong: rules read a record, or a series of records, and findings are ordered by cause."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
