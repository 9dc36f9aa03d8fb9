"""The JSON Schema of reports, and the check of a document against it.

The schema says what a report may hold; of the words of JSON Schema, the check knows those that ours uses.
Two things are read although the schema refuses them: keys that this version does not know, and reports
without keys that earlier versions did not write. A whole number is one without a decimal point.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import resources
from typing import Any, cast

from fno_telemetry.files import walk_levels

_Node = Mapping[str, Any]
_Check = Callable[[Any], None]

_KINDS: dict[str, tuple[frozenset[type], str]] = {
    "object": (frozenset({dict}), "an object"),
    "array": (frozenset({list}), "a list"),
    "string": (frozenset({str}), "a text"),
    "integer": (frozenset({int}), "a whole number"),
    "number": (frozenset({int, float}), "a number"),
    "boolean": (frozenset({bool}), "true or false"),
    "null": (frozenset({type(None)}), "null"),
}
_LONGEST_VALUE = 40  # characters of what a message shows
_ELSEWHERE = ("schema", "quantities")  # keys that are checked where they are read
_MAY_BE_MISSING: Mapping[str, Collection[str]] = {
    "tensor_keys": ("reasons", "histogram", "log_histogram", "spectrum", "sketch"),
    "block": ("reasons",),
}
_NOTHING_REQUIRED = "summary"


class Misfit(ValueError):
    """A value that is not what the schema says; the text says where it is and what was expected."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(f"{_show(value)}; expected {expected}")
        self.path: list[str] = []  # the inmost part first

    def __str__(self) -> str:
        return f"{''.join(reversed(self.path)).removeprefix('.')} is {self.args[0]}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema that every report satisfies."""
    text = resources.files("fno_telemetry").joinpath("report.schema.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


def check_document(document: Mapping[str, Any]) -> None:
    """Raise Misfit for the first value in the document that is not what the schema says."""
    _compile_schema()(document)


@cache
def _compile_schema() -> _Check:
    schema = json_schema()
    properties = {key: node for key, node in schema["properties"].items() if key not in _ELSEWHERE}
    return _Compiler(schema["$defs"]).compile({"type": "object", "properties": properties})


class _Compiler:
    """Makes a function of each part of a schema, so that it is not read again for each value."""

    def __init__(self, definitions: Mapping[str, _Node]) -> None:
        self._definitions = definitions

    def compile(self, given: _Node) -> _Check:
        """Return the function that raises Misfit for a value which the node refuses."""
        node = self._resolve(given)
        if dict in _types_of(node):
            return self._compile_object(node)
        return self._compile_list(node) if list in _types_of(node) else _compile_value(node)

    def _resolve(self, node: _Node) -> _Node:
        """Return the node with what it refers to; where null is an alternative, its type may be null."""
        if "anyOf" in node:
            [other] = [part for part in node["anyOf"] if part != {"type": "null"}]
            found = self._resolve(other)
            return {**found, "type": [found["type"], "null"]}
        if "$ref" not in node:
            return node
        name = node["$ref"].removeprefix("#/$defs/")
        found = self._resolve(self._definitions[name])
        missing = _MAY_BE_MISSING.get(name, ())
        required = [key for key in found.get("required", ()) if key not in missing]
        return {
            **found,
            **node,
            "properties": {**found.get("properties", {}), **node.get("properties", {})},
            "required": [] if name == _NOTHING_REQUIRED else [*required, *node.get("required", ())],
        }

    def _compile_object(self, node: _Node) -> _Check:
        types, expected = _types_of(node), _describe(node)
        known = {key: self.compile(part) for key, part in node.get("properties", {}).items()}
        others = node.get("additionalProperties")
        check_other = self.compile(others) if isinstance(others, Mapping) else _check_nesting
        required = frozenset(node.get("required", ()))
        pattern = node.get("propertyNames", {}).get("pattern")
        is_name = re.compile(pattern).search if pattern else None

        def check(value: Any) -> None:
            if type(value) not in types:
                raise Misfit(value, expected)
            if value is None:
                return
            if not required <= value.keys():
                raise Misfit(value, f"{expected} with {min(required - value.keys())!r}")
            for key, item in value.items():
                try:
                    if is_name is not None and is_name(key) is None:
                        raise Misfit(item, f"a name that matches {pattern}")
                    known.get(key, check_other)(item)
                except Misfit as misfit:
                    misfit.path.append(f".{key}")
                    raise

        return check

    def _compile_list(self, node: _Node) -> _Check:
        types, expected = _types_of(node), _describe(node)
        least, most = node.get("minItems", 0), node.get("maxItems", float("inf"))
        inner = self._resolve(node["items"])
        check_item, inner_types = self.compile(inner), _types_of(inner)
        are_numbers = inner_types <= {int, float, type(None)}
        lowest = inner.get("minimum")

        def check(value: Any) -> None:
            if type(value) not in types:
                raise Misfit(value, expected)
            if value is None:
                return
            if not least <= len(value) <= most:
                raise Misfit(
                    value, f"{expected} of {least} or more" + (f", {most} at most" if most < 1e9 else "")
                )
            # The numbers of histograms and spectra are looked at one by one only if one of them is wrong.
            if (
                are_numbers
                and inner_types.issuperset(map(type, value))
                and (lowest is None or not value or min(value) >= lowest)
            ):
                return
            for index, item in enumerate(value):
                try:
                    check_item(item)
                except Misfit as misfit:
                    misfit.path.append(f"[{index}]")
                    raise

        return check


def _compile_value(node: _Node) -> _Check:
    types, expected = _types_of(node), _describe(node)
    choices = node.get("enum")
    lowest, highest = node.get("minimum"), node.get("maximum")
    above, shortest = node.get("exclusiveMinimum"), node.get("minLength", 0)

    def check(value: Any) -> None:
        if (
            type(value) not in types
            or (choices is not None and value not in choices)
            or (
                value is not None
                and (
                    (lowest is not None and value < lowest)
                    or (highest is not None and value > highest)
                    or (above is not None and value <= above)
                    or (shortest and len(value) < shortest)
                )
            )
        ):
            raise Misfit(value, expected)

    return check


def _check_nesting(value: Any) -> None:
    """Raise Misfit for a value of any kind that is nested too deeply."""
    try:
        for _ in walk_levels(value):
            pass
    except ValueError as error:
        raise Misfit(value, f"less of it: it is {error}") from None


def _types_of(node: _Node) -> frozenset[type]:
    return frozenset[type]().union(*(_KINDS[name][0] for name in _names_of_types(node)))


def _names_of_types(node: _Node) -> list[str]:
    found = node.get("type", "string")  # that of the choices
    return [found] if isinstance(found, str) else list(found)


def _describe(node: _Node) -> str:
    if "enum" in node:
        return f"one of {', '.join(map(json.dumps, node['enum']))}"
    bounds = ""
    if "minimum" in node:
        bounds = (
            f" from {node['minimum']} to {node['maximum']}"
            if "maximum" in node
            else f", {node['minimum']} or more"
        )
    if "exclusiveMinimum" in node:
        bounds = f" above {node['exclusiveMinimum']}"
    if node.get("minLength"):
        bounds = " that is not empty"
    first, *others = [_KINDS[name][1] for name in _names_of_types(node)]
    return " or ".join([first + bounds, *others])


def _show(value: object) -> str:
    """Return a value as a message shows it: its kind if it holds others, else itself, cut to a few words."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
