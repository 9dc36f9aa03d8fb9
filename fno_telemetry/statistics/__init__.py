"""What is measured, a statistic a file: each measures a tensor, merges its states, and summarizes them."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
