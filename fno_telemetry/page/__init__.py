"""A page of HTML in one file, which loads nothing; and what a notebook shows of a record."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
