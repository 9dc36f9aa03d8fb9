"""Measuring in several processes of `torch.distributed`: what each of them has becomes one record."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
