"""The house rules that a machine can check: who imports whom, where torch may be, what names are public."""

import ast
import importlib
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import fno_telemetry

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "fno_telemetry"
COMMAND = ROOT / "cli" / "fno_telemetry_cli"

# In this order: each folder or module may import those before it, and what is in the same place.
# Without torch, but for the writer that the TensorBoard sink takes from it:
BASE = (
    "wording",
    "errors",
    "version",
    "locks",
    "files",
    "quantities",
    "record_text",
    "records",
    "keys",
    "findings",
)
READERS = ("plugins", "report", "comparison", "diagnosis", "pictures", "page", "sinks")
# With torch:
TORCH = ("isolation", "statistics", "tracing", "mapping", "architectures", "sources", "measuring")
TORCH += ("processes", "session", "watching", "integrations")
TESTERS = ("testing",)
LAYERS = (*BASE, *READERS, *TORCH, *TESTERS)
# The same for the command:
COMMAND_LAYERS = (
    "interrupts",
    "invocation",
    "launched",
    "options",
    "failures",
    "reports_in",
    "showing",
    "capturing",
    "sink_choice",
)
COMMAND_LAYERS += ("replaying", "commands", "app", "__main__")
# What the command, and any other program, may import; the names of a package are those in its `__all__`.
PUBLIC = {
    "errors",
    "files",
    "findings",
    "keys",
    "locks",
    "page",
    "pictures",
    "plugins",
    "quantities",
    "records",
    "report",
    "sinks.tensorboard.start_page",
    "sinks.wandb",
    "wording",
}
PUBLIC |= {
    "architectures",
    "comparison",
    "diagnosis",
    "mapping",
    "processes",
    "sinks",
    "sources",
    "statistics",
}
PUBLIC |= {"testing"}
MOST_TOP_LEVEL_MODULES = 13
MOST_PARAMETERS = 15  # of a function of the command

DRAWERS = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc", "shared", "tools"}


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py")) + sorted(COMMAND.rglob("*.py"))


def top_level_name(path: Path) -> str:
    root = LIBRARY if path.is_relative_to(LIBRARY) else COMMAND
    return path.relative_to(root).parts[0].removesuffix(".py")


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports at any depth, what only type checkers see left out."""
    tree = parse(path)
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
    return frozenset(found)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package, layers = ("fno_telemetry", LAYERS)
    if path.is_relative_to(COMMAND):
        package, layers = ("fno_telemetry_cli", COMMAND_LAYERS)
    rank = {name: index for index, name in enumerate(layers)}
    own = top_level_name(path)
    if own == "__init__":
        return
    for module in imports(path):
        if module.startswith(f"{package}."):
            other = module.split(".")[1]
            if other in rank and other != own:
                assert rank[other] < rank[own], f"{own} may not import {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    name_of = {}
    for path in modules():
        root = LIBRARY.parent if path.is_relative_to(LIBRARY) else COMMAND.parent
        name_of[path] = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    names = set(name_of.values())
    imported = {name: (imports(path) & names) - {name} for path, name in name_of.items()}
    TopologicalSorter(imported).prepare()  # CycleError names a circle


def test_contributing_lists_the_layers_in_this_order() -> None:
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| in `fno_telemetry/` | holds |") + 2
    assert tuple(line.split("`")[1].rstrip("/") for line in lines[start : start + len(LAYERS)]) == LAYERS
    assert lines[start + len(LAYERS)] == ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_only_where_they_belong(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path)}
    if "wandb" not in path.parts:
        assert "wandb" not in roots
    if "tensorboard" not in path.parts:
        assert "tensorboard" not in roots
    if "page" not in path.parts:
        assert "jinja2" not in roots
    if "pictures" not in path.parts:
        assert "matplotlib" not in roots
    # It keeps the figures of the user's own program.
    assert "matplotlib.pyplot" not in imports(path)
    in_library = path.is_relative_to(LIBRARY)
    # Sinks get finished numbers; TensorBoard's writer is the one thing they take from torch.
    own = top_level_name(path) if in_library else ""
    takes_writer = path.parts[-2:] == ("tensorboard", "sink.py")
    if in_library and own not in (*TORCH, *TESTERS) and not takes_writer:
        assert "torch" not in roots


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_named_for_what_they_hold(path: Path) -> None:
    assert not DRAWERS & {path.stem, path.parent.name}


def test_every_layer_exists_and_every_module_has_a_layer() -> None:
    for package, layers in ((LIBRARY, LAYERS), (COMMAND, COMMAND_LAYERS)):
        there = {top_level_name(path) for path in package.rglob("*.py")} - {"__init__"}
        assert there == set(layers)


def test_the_top_of_the_package_can_be_taken_in_at_a_glance() -> None:
    assert len(list(LIBRARY.glob("*.py"))) <= MOST_TOP_LEVEL_MODULES


@pytest.mark.parametrize("path", sorted(COMMAND.rglob("*.py")), ids=lambda p: str(p.relative_to(COMMAND)))
def test_the_command_uses_public_names_only(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.startswith("fno_telemetry.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fno_telemetry":
            _, _, module = str(node.module).partition(".")
            for alias in node.names:
                assert is_public(module, alias.name), f"{node.module}.{alias.name} is not public"
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ft":
            assert node.attr in fno_telemetry.__all__


def is_public(module: str, name: str) -> bool:
    """Whether `from fno_telemetry.MODULE import NAME` takes a public module, or a public name of one."""
    if f"{module}.{name}".lstrip(".") in PUBLIC:
        return True
    home = importlib.import_module(f"fno_telemetry.{module}" if module else "fno_telemetry")
    named = getattr(home, "__all__", None)
    listed = not name.startswith("_") if named is None else name in named
    return listed and (not module or module in PUBLIC)


@pytest.mark.parametrize("package", ["", *sorted(PUBLIC)])
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(f"fno_telemetry.{package}" if package else "fno_telemetry")
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


def test_what_users_type_fits_on_a_screen() -> None:
    assert len(fno_telemetry.__all__) <= 44


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No fno_telemetry attribute captrue"):
        _ = fno_telemetry.captrue


@pytest.mark.parametrize("module", ["fno_telemetry", "fno_telemetry_cli.app", "fno_telemetry.integrations"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = ("torch", "tensorboard", "wandb", "lightning", "pytorch_lightning", "neuralop", "accelerate")
    heavy += ("matplotlib", "jinja2")
    program = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(COMMAND.rglob("*.py")), ids=lambda p: str(p.relative_to(COMMAND)))
def test_functions_of_the_command_take_few_parameters_and_name_what_they_pass_on(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            given = node.args
            count = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
            assert count <= MOST_PARAMETERS, f"line {node.lineno} has {count} parameters"
        elif isinstance(node, ast.Name):
            assert node.id != "locals", f"line {node.lineno}"
