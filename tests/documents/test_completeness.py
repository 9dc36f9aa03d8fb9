"""Whatever a user can name is documented, and the documents name nothing that is not there."""

import ast
import importlib
import re
import shutil
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch

import fno_telemetry as ft
from fno_telemetry import plugins, report
from fno_telemetry_cli.app import COMMANDS, load_command
from support.documents import DOCUMENTS, ROOT, Shell, document_name

COMMAND = ROOT / "docs" / "command.md"
EVERY_COMMAND = ("--json", "--quiet", "-q")
DOCUMENT_OF = {"rules": "diagnosis.md", "statistics": "statistics.md", "sinks": "command.md"}
DOCUMENT_OF |= {"architectures": "command.md"}


def rows(path: Path, head: str) -> list[list[str]]:
    """Return the cells of the table whose head starts like this, without its head."""
    lines = path.read_text(encoding="utf-8").splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(head)]
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def option_rows() -> list[list[str]]:
    """Return every row of docs/command.md that describes options."""
    lines = COMMAND.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `-")]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@cache
def parameters() -> dict[tuple[str, str], object]:
    """Return the default of each option by command and option, short forms included."""
    commands = {name: load_command(name) for name in COMMANDS}
    return {
        (name, option): parameter.default
        for name, command in commands.items()
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in parameter.opts
    }


@pytest.mark.parametrize(("kind", "document"), DOCUMENT_OF.items())
def test_every_built_in_plug_in_is_documented(kind: str, document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    assert [name for name in plugins.KINDS[kind] if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", plugins.KINDS["statistics"])
def test_every_number_of_a_statistic_is_documented(name: str) -> None:
    text = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    quantities = plugins.load("statistics", name)().quantities
    assert [quantity.name for quantity in quantities if f"`{quantity.name}`" not in text] == []


def test_every_rule_has_a_row_and_every_row_is_a_rule() -> None:
    table = rows(ROOT / "docs" / "diagnosis.md", "| rule |")
    assert sorted(name for first, *_ in table for name in code(first)) == sorted(plugins.RULES)


def test_every_command_has_a_row_and_every_row_is_a_command() -> None:
    commands = list(COMMANDS)
    assert [code(first)[0] for first, _ in rows(COMMAND, "| command |")] == commands


def test_every_option_has_a_row_that_names_its_commands_and_no_row_is_left_over() -> None:
    documented = set()
    for first, _, _, *rest in option_rows():
        options = [option.split(" ")[0] for option in code(first)]
        for option in options:
            commands = code(rest[0]) if rest else {name for name, _ in parameters()}
            documented |= {(command, option) for command in commands}
    assert documented == set(parameters())


def test_the_defaults_of_options_are_those_of_the_command() -> None:
    compared = 0
    for first, default, _, *rest in option_rows():
        option = code(first)[0].split(" ")[0]
        for command in code(rest[0]) if rest else ():
            value = parameters()[command, option]
            if value is None or value is False:
                continue
            own = re.search(rf"(\S+) for `{command}`", default)
            said = own[1].strip("`(") if own else re.split(r"[ ;]", default)[0].strip("`")
            assert said == str(value), f"{command} {option}"
            compared += 1
    assert compared > 5


def test_the_defaults_in_the_help_are_those_of_the_command() -> None:
    commands = {name: load_command(name) for name in COMMANDS}
    compared = 0
    for name, command in commands.items():
        for parameter in command.params:
            value = parameter.default
            if parameter.param_type_name != "option" or value is None or value is False:
                continue
            assert f"Default: {value}." in parameter.help, f"{name} {parameter.name}"
            assert parameter.show_default is False, f"{name} {parameter.name} has its default twice"
            compared += 1
    assert compared > 5


def test_every_exit_code_has_a_row_and_every_row_is_an_exit_code() -> None:
    found = {0}
    for path in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign):
                names = {
                    inner.id for target in node.targets for inner in ast.walk(target) if hasattr(inner, "id")
                }
                if any(name.startswith("EXIT_") for name in names):
                    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                    found |= {value.value for value in values}  # type: ignore[attr-defined]
    assert {int(first) for first, _ in rows(COMMAND, "| code |")} == found


def test_every_extra_has_a_row_and_every_row_is_an_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {code(first)[0] for first, _ in rows(COMMAND, "| extra |")} == set(
        project["optional-dependencies"]
    )


def test_every_key_of_a_report_has_a_row_and_every_row_is_a_key() -> None:
    keys = [key for first, _ in rows(ROOT / "docs" / "report.md", "| key |") for key in code(first)]
    assert sorted(keys) == sorted(report.json_schema()["properties"])


def test_every_entry_of_the_provenance_has_a_row_and_every_row_is_an_entry(
    prepared: Path, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    weights = torch.load("b.ckpt")["state_dict"]
    torch.save({"model": weights, "ema": weights}, "sets.ckpt")
    sources = (
        "--input train.npz --checkpoint sets.ckpt --loss networks:mean_square",
        "--batches networks:fields --prediction networks:itself --set hidden_channels=4 --set modes=3",
    )
    entries: dict[str, set[str]] = {}
    for number, source in enumerate(sources):
        assert shell(f"fno-telemetry capture {source} --output out{number}").returncode == 0
        for key, held in ft.load_report(f"out{number}/activation_report.json").provenance.items():
            # Of the arguments, every network has its own.
            own = held if isinstance(held, Mapping) and key != "arguments" else ()
            entries.setdefault(key, set()).update(own)
    rows_of = {
        key: set(code(text))
        for first, text in rows(ROOT / "docs" / "report.md", "| in `provenance` |")
        for key in code(first)
    }
    # `processes` is there with several of them alone, which tests/cli/test_launched.py starts.
    assert rows_of.keys() - {"processes"} == entries.keys()
    assert {key: missing for key, own in entries.items() if (missing := own - rows_of[key])} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_a_line_and_an_example(command: str) -> None:
    text = load_command(command).help
    assert re.match(r"[A-Z][^\n]+\.\n", text)
    assert re.search(rf"^Example: fno-telemetry {command}\b", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_paths_and_modules_that_a_document_names_are_there(path: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    # Files of examples are added by the tests alone.
    for name in code(re.sub(r"^File `.*`:$", "", text, flags=re.M)):
        if re.fullmatch(r"(fno_telemetry|cli|tests|docs|examples|benchmarks|scripts)/[\w./-]*", name):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"fno_telemetry(\.\w+)+(:\w+)?", name):
            module, _, attribute = name.partition(":")
            assert is_there(module, attribute), name


def is_there(module: str, attribute: str) -> bool:
    """Whether this is a module, a public name, or the group of an entry point."""
    groups = {f"fno_telemetry.{kind}" for kind in plugins.KINDS}
    public = {f"fno_telemetry.{name}" for name in ft.__all__}
    if module in groups | public:
        return True
    try:
        return not attribute or hasattr(importlib.import_module(module), attribute)
    except ImportError:
        return False
