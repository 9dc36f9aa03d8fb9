"""See what happens inside neural operators: capture once, view anywhere.

`__init__.pyi` lists the public names and their modules. A name is imported on first use, so that reading
a report does not import torch.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
