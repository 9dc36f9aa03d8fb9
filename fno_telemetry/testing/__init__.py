"""Testers of plug-ins: functions that check what a statistic, sink, architecture or rule has to do."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
