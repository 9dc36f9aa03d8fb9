"""Numbers and names in the messages of rules, as everything else shows them."""

from fno_telemetry.wording import format_number, format_percent, join_names

__all__ = ["format_number", "format_percent", "join_names"]
