"""Every command of the documentation names a program that exists, with options that it takes.

Programs are stopped as soon as their arguments are read.
"""

import re
import shlex
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
import typer

from metake import cli
from metake.commands.program import UsageError
from metake.options import Parser
from tests.scripts import EXPERIMENTS, call_here

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = r"(?:metake [a-z]|python experiments/|pytest |make [a-z]|torchrun )"
EDIT = "--request x{} --subject x --target y"


def joined(text: str) -> str:
    """A text whose continued lines are one."""
    return re.sub(r"\\\n *", "", text)


def commands(text: str) -> list[str]:
    """Commands in lines of their own."""
    return re.findall(rf"^(?: {{4}})?({PROGRAM}.*)$", joined(text), re.MULTILINE)


def mentions(text: str) -> list[str]:
    """Commands between backticks, which may leave out what they need."""
    return re.findall(rf"`({PROGRAM}[^`\n]*)`", joined(text))


def texts() -> dict[str, str]:
    pages = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    scripts = {path.name: path.read_text(encoding="utf-8") for path in sorted(EXPERIMENTS.glob("*.py"))}
    return pages | {name: text.split('"""')[1] for name, text in scripts.items()}


DOCUMENTED = [(name, line) for name, text in texts().items() for line in dict.fromkeys(commands(text))]
MENTIONED = [(name, line) for name, text in texts().items() for line in dict.fromkeys(mentions(text))]


def words_of(line: str) -> list[str]:
    """The words of a command; what it leaves out as `...` is filled in."""
    line = line.replace("--methods ...", "--methods memit")
    if line.startswith("metake edit") and "..." in line:
        line = line.replace("...", EDIT if "--model" in line else f"--model demo {EDIT}")
    return [word for word in shlex.split(line, comments=True) if word != "..."]


def make_config(words: list[str]) -> None:
    """A file of options for a command that reads one."""
    path = Path(words[words.index("--config") + 1])
    if not path.suffix:
        path.mkdir()
        path /= "options.json"
    path.write_text('{"model": "demo", "data": "records.json"}', encoding="utf-8")  # JSON is YAML, too


def check_metake(words: list[str]) -> None:
    if "--config" in words:
        make_config(words)
    group = typer.main.get_command(cli.app)
    context = group.make_context("metake", list(words))
    name, command, rest = group.resolve_command(context, list(words))
    if rest:
        command.make_context(name, rest, parent=context)


def check_script(path: str, *words: str) -> None:
    script = ROOT / path
    assert script.is_file()
    assert script.parent == EXPERIMENTS
    if "main = Script(" in script.read_text(encoding="utf-8"):
        program = import_module(f"experiments.{script.stem}").main
        program.command.make_context(program.name, list(words))
        return
    if "Parser(" not in script.read_text(encoding="utf-8"):  # takes no options
        assert not words
        return
    read = Parser.parse_args

    def stop(parser: Parser, arguments: list[str] | None = None) -> None:
        read(parser, arguments)
        raise SystemExit(0)

    with mock.patch.object(Parser, "parse_args", stop):
        call_here(script.name, *words)


def check_pytest(words: list[str], config: pytest.Config) -> None:
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-"):
            config.getoption(word.partition("=")[0])
        elif before != "-k" and not re.fullmatch(r"[TLPAX]\d+\w?|\d|ID", word):
            assert (ROOT / word.partition("::")[0]).exists(), word


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def check(line: str, config: pytest.Config) -> None:
    program, *words = words_of(line)
    if program == "torchrun":
        program, words = "metake", words[words.index("metake.cli") + 1 :]
    if program == "metake":
        check_metake(words)
    elif program == "python":
        check_script(*words)
    elif program == "pytest":
        check_pytest(words, config)
    else:
        check_make(words)


def test_documentation_has_commands_of_every_kind():
    assert {line.split()[0] for _, line in DOCUMENTED} == {"metake", "python", "pytest", "make", "torchrun"}
    assert len(DOCUMENTED) > 80


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_documented_command_is_taken_by_its_program(page, line, tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(tmp_path)
    check(line, pytestconfig)


@pytest.mark.parametrize(("page", "line"), MENTIONED)
def test_mentioned_command_exists_with_its_options(page, line, tmp_path, monkeypatch, pytestconfig):
    monkeypatch.chdir(tmp_path)
    with suppress(typer.BadParameter):  # what it needs beside these options
        check(line, pytestconfig)


@pytest.mark.parametrize(
    "line",
    [
        "metake edit ... --nonsense",
        "metake edits",
        "python experiments/none.py",
        "python experiments/demo.py --editz 3",
        "pytest --nonsense",
        "pytest verifications/",
        "make nothing",
    ],
)
def test_documented_command_with_an_error_is_reported(line, tmp_path, monkeypatch, pytestconfig):
    """A command that its program does not take is noticed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, ImportError, ValueError, UsageError)):
        check(line, pytestconfig)
