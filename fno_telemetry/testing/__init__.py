"""For authors of plug-ins: testers of the contracts, an example record and a sink in memory."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
