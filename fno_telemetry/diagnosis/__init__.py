"""Finds what is wrong: rules read a record, or a series of records, and findings are sorted by cause.

What the author of a rule needs is here: `rule` makes one, `Symptom` is what it yields, the functions for
places read a record. `fno_telemetry.diagnosis.example_records` makes the two examples that a rule brings.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
