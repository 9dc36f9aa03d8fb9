"""Model maps as TOML files: written by `fno-telemetry map --output`, read back by `--map`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fno_telemetry.errors import MapError
from fno_telemetry.files import read_toml, whole_file
from fno_telemetry.mapping.model_map import ROLES, GivenRole, ModelMap
from fno_telemetry.wording import hint_at_names, is_printable, to_printable

SCHEMA = "fno-telemetry-map/1"
_KEYS = {"name", "role", "spatial_axes", "channel_axis"}


def write_map(model_map: ModelMap, path: str | Path) -> None:
    """Write the map completely or not at all; any entry can be edited or deleted before it is read again."""
    lines = [
        "# Roles: " + ", ".join(ROLES) + ".",
        "# Modules, roles and axes that are not listed here are detected from the model.",
        f"schema = {_quote(SCHEMA)}",
    ]
    for module in model_map.modules:
        lines += ["", f"# {to_printable(f'{module.class_name}: {module.reason}')}"]
        if any("\ud800" <= letter <= "\udfff" for letter in module.name):
            lines.append(f"# Left out, since TOML has no such name: {to_printable(module.name)}")
            continue
        lines.append("[[modules]]")
        lines.append(f"name = {_quote(module.name)}")
        lines.append(f"role = {_quote(module.role)}")
        lines.append(f"spatial_axes = {list(module.spatial_axes)}")
        if module.channel_axis is not None:
            lines.append(f"channel_axis = {module.channel_axis}")
    with whole_file(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_map(path: str | Path) -> dict[str, GivenRole]:
    """Read the roles and axes in a map file, by module path; MapError says what is wrong in the file."""
    document = read_toml(path, MapError, hint="; `fno-telemetry map --output` writes one")
    if document.get("schema") != SCHEMA:
        raise MapError(f"{path}: the schema is {document.get('schema')!r}, expected {SCHEMA!r}")
    if unknown := set(document) - {"schema", "modules"}:
        raise MapError(
            f"{path}: unknown key {min(unknown)!r}. {hint_at_names(min(unknown), ('modules', 'schema'))}"
        )
    entries = document.get("modules", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise MapError(f"{path}: modules must be tables, each with the header [[modules]]")
    given: dict[str, GivenRole] = {}
    for entry in entries:
        name, role = _entry(path, entry)
        if name in given:
            raise MapError(f"{path}: {name!r} is listed twice")
        given[name] = role
    return given


def _quote(text: str) -> str:
    """Return a text as TOML writes it; what nobody would see in the file is escaped."""
    parts = (f"\\{letter}" if letter in '"\\' else letter for letter in text)
    return '"' + "".join(part if is_printable(part) else f"\\U{ord(part):08X}" for part in parts) + '"'


def _entry(path: str | Path, entry: Mapping[str, Any]) -> tuple[str, GivenRole]:
    name, role = entry.get("name"), entry.get("role")
    axes, channel = entry.get("spatial_axes"), entry.get("channel_axis")
    if not isinstance(name, str):
        raise MapError(f"{path}: an entry of modules has no name")
    if unknown := set(entry) - _KEYS:
        hint = hint_at_names(min(unknown), sorted(_KEYS))
        raise MapError(f"{path}: {name!r} has an unknown key {min(unknown)!r}. {hint}")
    if role is not None and role not in ROLES:
        raise MapError(f"{path}: {name!r} has the unknown role {role!r}. {hint_at_names(str(role), ROLES)}")
    if axes is not None and not (isinstance(axes, list) and all(_is_axis(axis) for axis in axes)):
        raise MapError(f"{path}: spatial_axes of {name!r} must be a list of axes counted from 0")
    if channel is not None and not _is_axis(channel):
        raise MapError(f"{path}: channel_axis of {name!r} must be an axis counted from 0")
    try:
        return name, GivenRole(role, None if axes is None else tuple(axes), channel)
    except MapError as error:
        raise MapError(f"{path}: {name!r}: {error}") from error


def _is_axis(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
