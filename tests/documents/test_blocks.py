"""Every Python, shell, console and TOML block of the documents runs; a skipped one says why above it."""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from support.documents import DOCUMENTS, Shell, document_name, example_network

ELISION = "…"  # stands for any number of lines in an expected output

FILE_OF_THE_READER = re.compile(r"^File `([\w.]+)`:\s*\Z", re.MULTILINE)
"""The line before a block that the reader saves in the working folder; no path of the repository matches."""


Evaluate = Callable[[Example], str | None]


def run_python(example: Example) -> None:
    """Run a Python block in a module, so that its classes can be pickled; then the tests that it defines."""
    before = set(example.namespace)
    module = ModuleType(example.namespace.setdefault("__name__", "block"))
    vars(module).update(example.namespace)
    sys.modules[module.__name__] = module
    try:
        PythonEvaluator()(example)
    finally:
        del sys.modules[module.__name__]
    for name in sorted(set(example.namespace) - before):
        if name.startswith("test_"):
            example.namespace[name]()


def run_sh(example: Example) -> str | None:
    """Run a shell block; every command must end with exit code 0."""
    done = example.namespace["shell"](example.parsed)
    return f"exit code {done.returncode}\n{done.stderr}" if done.returncode else None


def run_console(example: Example) -> str | None:
    """Run the commands after `$ ` and compare what they print with the lines below each."""
    _, *sessions = re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)
    for session in sessions:
        command, expected = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", session, re.DOTALL).groups()
        done = example.namespace["shell"](command)
        if done.returncode:
            return f"exit code {done.returncode}\n{done.stderr}"
        if (missing := first_missing_line(expected.splitlines(), done.stdout.splitlines())) is not None:
            return f"expected the line {missing!r} in:\n{done.stdout}"
    return None


def first_missing_line(expected: list[str], printed: list[str]) -> str | None:
    """Return the first expected line that is not where it has to be; an elision stands for any lines."""
    rest = iter(line.rstrip() for line in printed)
    skipping = False
    for line in expected:
        if line == ELISION:
            skipping = True
        elif not (line in rest if skipping else next(rest, None) == line):
            return line
        else:
            skipping = False
    return None if skipping or next(rest, None) is None else "the end of the output"


def parse_toml(example: Example) -> None:
    """Read a TOML block."""
    tomllib.loads(example.parsed)


def save_or(run: Evaluate) -> Evaluate:
    """Return what saves a block that is a file of the reader, for later blocks to use, and runs any other."""

    def evaluate(example: Example) -> str | None:
        named = FILE_OF_THE_READER.search(example.document.text[: example.start])
        if named is None:
            return run(example)
        Path(named[1]).write_text(example.parsed, encoding="utf-8")
        return None

    return evaluate


EVALUATORS = {"python": run_python, "sh": run_sh, "console": run_console, "toml": parse_toml}
PARSERS = (
    SkipParser(),
    *(CodeBlockParser(language, save_or(run)) for language, run in EVALUATORS.items()),
)


def parse(path: Path) -> Document:
    return Document.parse(str(path), *PARSERS)


def blocks() -> list[object]:
    """Return a test parameter for each block and each directive, in the order in which they are printed."""
    found = []
    for path in DOCUMENTS:
        document = parse(path)
        found += [
            pytest.param(path, example, id=f"{document_name(path)}:{example.line}") for example in document
        ]
    return found


@pytest.mark.parametrize(("path", "example"), blocks())
def test_a_block_runs(
    path: Path,
    example: Example,
    folder_of: Callable[[Path], Path],
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder_of(path))
    if not example.namespace:
        # What README says is there: the reader's own model and data.
        example.namespace["model"] = example_network()
        example.namespace["batches"] = [torch.rand(2, 1, 32, 32) for _ in range(2)]
    example.namespace["shell"] = shell
    example.evaluate()


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_a_block_names_its_language_and_output_alone_goes_without(path: Path) -> None:
    fences = RawFencedCodeBlockLexer(re.compile(r"(?P<language>.*)$\n", re.MULTILINE))
    for region in fences(Document(path.read_text(encoding="utf-8"), str(path))):
        language, source = region.lexemes["language"], region.lexemes["source"]
        assert language in {*EVALUATORS, ""}
        if not language:
            assert not re.search(r"^(\$ |fno-telemetry|pip|make|python|import|from) ", source, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=document_name)
def test_a_skipped_block_says_why(path: Path) -> None:
    directives = re.findall(r"<!--+ skip: (.*?)--+>", path.read_text(encoding="utf-8"))
    for directive in directives:
        assert re.fullmatch(r'next "[^"]{10,}"\s*', directive)


def test_a_misspelt_name_in_readme_fails(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = DOCUMENTS[0].read_text(encoding="utf-8")
    assert text.count("ft.capture(") == 1
    changed = tmp_path / "README.md"
    changed.write_text(text.replace("ft.capture(", "ft.captrue("), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AttributeError, match="captrue"):
        run_all(changed, shell, only="python")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```sh\nfno-telemetry captrue\n```\n", "exit code 2"),
        ("```sh\nfalse\ntrue\n```\n", "exit code 1"),
        ("```console\n$ echo one\ntwo\n```\n", "expected the line 'two'"),
        ("```console\n$ printf 'one\\ntwo'\none\n```\n", "expected the line 'the end of the output'"),
        ("```console\n$ printf 'one\\ntwo'\n…\none\n…\nthree\n```\n", "expected the line 'three'"),
    ],
)
def test_a_wrong_block_fails(
    text: str, reason: str, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = tmp_path / "wrong.md"
    document.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match=reason):
        run_all(document, shell)


def run_all(path: Path, shell: Shell, only: str | None = None) -> None:
    parsers = PARSERS if only is None else (CodeBlockParser(only, EVALUATORS[only]),)
    document = Document.parse(str(path), *parsers)
    document.namespace |= {"model": example_network(), "batches": torch.rand(2, 1, 32, 32), "shell": shell}
    for example in document:
        example.evaluate()
