"""The house rules that a machine can check: who imports whom, how long modules are, what names are public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fno_telemetry

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "fno_telemetry"
COMMAND = ROOT / "cli" / "fno_telemetry_cli"

# In this order: each folder or module may import those before it, and what is in the same place.
LAYERS = (
    *("errors", "version", "canonical_paths", "files", "records", "keys", "findings", "plugins", "report"),
    *("comparison", "diagnosis", "sinks", "isolation", "statistics", "tracing", "mapping"),
    *("architectures", "sources", "measuring", "session", "testing"),
)
TORCH = {"isolation", "statistics", "tracing", "mapping", "architectures", "sources", "measuring", "session"}
DRAWERS = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc"}


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py")) + sorted(COMMAND.rglob("*.py"))


def top_level_name(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules that a file imports at any depth, what only type checkers see left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    rank = {name: index for index, name in enumerate(LAYERS)}
    own = top_level_name(path)
    if own == "__init__":
        return
    for module in imports(path):
        if module.startswith("fno_telemetry."):
            other = module.split(".")[1]
            if other in rank and other != own:
                assert rank[other] < rank[own], f"{own} may not import {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_only_where_they_belong(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path)}
    if "wandb" not in path.parts:
        assert "wandb" not in roots
    assert "tensorboard" not in roots
    in_library = path.is_relative_to(LIBRARY)
    # Sinks get finished numbers; TensorBoard's writer is the one thing they take from torch.
    if in_library and top_level_name(path) not in TORCH and path.parts[-2:] != ("tensorboard", "sink.py"):
        assert "torch" not in roots


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_named_for_what_they_hold(path: Path) -> None:
    assert path.stem not in DRAWERS


def test_every_layer_exists_and_every_module_has_a_layer() -> None:
    there = {top_level_name(path) for path in LIBRARY.rglob("*.py")} - {"__init__"}
    assert there == set(LAYERS)


@pytest.mark.parametrize("path", sorted(COMMAND.rglob("*.py")), ids=lambda p: p.name)
def test_the_command_uses_public_names_only(path: Path) -> None:
    open_to_all = "fno_telemetry.findings"
    private = {m for m in imports(path) if m.startswith("fno_telemetry.") and not m.startswith(open_to_all)}
    assert not private
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ft"
    }
    assert used <= set(fno_telemetry.__all__)


def test_every_public_name_is_there() -> None:
    for name in fno_telemetry.__all__:
        assert getattr(fno_telemetry, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'captrue'"):
        _ = fno_telemetry.captrue


@pytest.mark.parametrize("module", ["fno_telemetry", "fno_telemetry_cli.app"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    program = (
        f"import sys, {module}; print([m for m in ('torch', 'tensorboard', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
