"""Writes docs/report_format.md, every key of a report with its type, from the JSON Schema that is shipped.

    python docs/generators/report_format_page.py

A test fails where the page is not what this would write.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fno_telemetry import report
from fno_telemetry.quantities import look_up

PAGE = Path(__file__).parents[1] / "report_format.md"

_HEAD = """# The format of a report, key by key

Every report satisfies the JSON Schema that the package ships, `fno_telemetry.report.json_schema()`;
`make docs-pages` writes this page from it. [report.md](report.md) says what the parts of a report are for,
and [statistics.md](statistics.md) defines each number. Keys marked * are always there. Numbers that are
undefined are null, with the reason under the same name in `reasons`.
"""
_TITLES = {
    "summary": "`summary`",
    "module": "An entry of `modules`",
    "tensor_keys": "What the entries of all tensors have",
    "block": "An entry of `blocks`",
    "parameter": "An entry of `parameters`",
    "value_sample": "`sample` of a parameter",
    "accuracy": "`accuracy`",
    "band_accuracy": "`accuracy.bands`",
    "order": "An entry of `accuracy.orders`",
    "resolution": "`resolution`",
    "stats": "`stats`",
    "histogram": "`histogram`",
    "log_histogram": "`log_histogram`",
    "spectrum": "`spectrum`",
    "mode_energy": "`mode_energy`",
    "sketch": "`sketch`",
    "finding": "An entry of `findings`",
    "quantity": "An entry of `quantities`",
}
"""Definitions with a section of their own, in the order of the page."""

_SHORT = {
    "share": "share or null",
    "not_negative": "number ≥ 0 or null",
    "named_reasons": "list of names with reasons",
    "reasons": "texts by name",
    "tensor_or_null": "[tensor](#{}) or null",
}
"""What the other definitions are called where they are used."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(text(), encoding="utf-8")


def text() -> str:
    """Return the page."""
    schema = report.json_schema()
    parts = [_HEAD, *_section("The report", schema)]
    for name, title in _TITLES.items():
        parts += _section(title, schema["$defs"][name])
    return "\n".join(parts)


def _section(title: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one table, with those of objects inside its keys."""
    yield f"## {title}\n"
    if (described := node.get("description")) is not None:
        yield f"{_escape(described)}\n"
    if "$ref" in node:
        yield f"Also has the keys of [all tensors](#{_anchor(_TITLES['tensor_keys'])}).\n"
    yield "| key | value | meaning |\n|---|---|---|"
    required = node.get("required", ())
    for key, value in node["properties"].items():
        meaning = value.get("description") or ""
        if title == _TITLES["stats"]:
            meaning = look_up([key])[key].title
        star = " *" if key in required else ""
        yield f"| `{key}`{star} | {_type(value)} | {_escape(meaning)} |"
        for inner, given in value.get("properties", {}).items():
            yield f"| `{key}.{inner}` | {_type(given)} | {_escape(given.get('description') or '')} |"
    yield ""


def _type(node: Mapping[str, Any]) -> str:
    """Return what a value may be, in words."""
    if "$ref" in node:
        return _reference(node["$ref"].removeprefix("#/$defs/"))
    if "anyOf" in node:
        return " or ".join(_type(part) for part in node["anyOf"])
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        values = [value for value in node["enum"] if value is not None]
        shown = [f"`{_escape(str(value))}`" for value in values]
        return ", ".join(shown) + (" or null" if len(values) < len(node["enum"]) else "")
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    return " or ".join(_kind(kind, node) for kind in kinds)


def _kind(kind: str, node: Mapping[str, Any]) -> str:
    if kind == "array":
        items = _type(node["items"])
        # "or" inside a list would seem to be about the list.
        return f"list of ({items})" if " or " in items and not items.startswith("[") else f"list of {items}"
    if kind in ("integer", "number"):
        least, above = node.get("minimum"), node.get("exclusiveMinimum")
        limit = f" ≥ {least}" if least is not None else f" > {above}" if above is not None else ""
        return {"integer": "whole number", "number": "number"}[kind] + limit
    return {"string": "text", "object": "object", "null": "null", "boolean": "true or false"}[kind]


def _reference(name: str) -> str:
    if name in _SHORT:
        return _SHORT[name].format(_anchor(_TITLES["tensor_keys"]))
    if name == "tensor":
        return f"[tensor](#{_anchor(_TITLES['tensor_keys'])})"
    return f"[{name.replace('_', ' ')}](#{_anchor(_TITLES[name])})"


def _anchor(title: str) -> str:
    """Return the anchor that the site gives a heading."""
    return "".join(letter for letter in title.lower() if letter.isalnum() or letter in " _").replace(" ", "-")


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
