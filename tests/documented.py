"""Share of public functions whose docstring describes every argument: `python -m tests.documented`.

A function counts if its name and the names of its class and module are public, and it takes arguments besides `self`
and `cls`. `Args:` has to list each of them. Arguments of a command of `metake` are options, and the help of an option
describes it (tests/test_commands.py).
"""

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Function:
    """A public function with arguments.

    Attributes:
        file: path of its module, from the root.
        name: its name, with that of its class.
        missing: arguments that its docstring does not describe.
    """

    file: str
    name: str
    missing: tuple[str, ...]


def functions_of(source: str, file: str = "") -> list[Function]:
    """Public functions with arguments of a module.

    Args:
        source: text of the module.
        file: its path.
    """
    return list(_functions(ast.parse(source).body, file, ""))


def _functions(body: list[ast.stmt], file: str, owner: str) -> Iterator[Function]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(node.body, file, f"{node.name}.")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = {ast.unparse(decorator) for decorator in node.decorator_list}
            a = node.args
            rest = [arg for arg in (a.vararg, a.kwarg) if arg]
            given = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, *rest)]
            if owner and "staticmethod" not in names:
                given = given[1:]
            given = [name for name in given if not name.startswith("_")]
            if given and not names & {"overload", "override"} and not _is_command(file, node.name):
                described = _described(ast.get_docstring(node) or "")
                missing = tuple(name for name in given if name not in described)
                yield Function(file, owner + node.name, missing)


def _is_command(file: str, name: str) -> bool:
    """Whether a function is the one of a file of `metake/commands/` that has its name."""
    return file == f"metake/commands/{name}.py"


def _described(docstring: str) -> set[str]:
    """Arguments that the section `Args:` of a docstring describes."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", docstring, re.MULTILINE)
    lines = section[1].splitlines() if section else []
    heads = [match[1] for line in lines if (match := re.match(r"    ([*\w, ]+):", line))]
    return {name.strip("* ") for head in heads for name in head.split(",")}


def pending_files() -> list[str]:
    """Patterns of files that `pyproject.toml` exempts from the rules of docstrings."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rules = settings["tool"]["ruff"]["lint"]["per-file-ignores"]
    patterns = [pattern for pattern, codes in rules.items() if "D" in codes]
    return [one for pattern in patterns for one in _expanded(pattern)]


def _expanded(pattern: str) -> list[str]:
    """Patterns without the alternatives `{a,b}` of one."""
    match = re.fullmatch(r"(.*)\{(.*)\}(.*)", pattern)
    return [match[1] + one + match[3] for one in match[2].split(",")] if match else [pattern]


def documented(packages: tuple[str, ...] = ("metake", "theory")) -> dict[str, list[Function]]:
    """File -> its public functions with arguments.

    Args:
        packages: folders from the root.
    """
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    names = {path: path.relative_to(ROOT).as_posix() for path in paths}
    return {name: functions_of(path.read_text(encoding="utf-8"), name) for path, name in names.items()}


def share(functions: list[Function]) -> float:
    """Share of functions that describe all arguments; 1 for none.

    Args:
        functions: the functions.
    """
    return sum(not function.missing for function in functions) / len(functions) if functions else 1.0


def is_pending(file: str) -> bool:
    """Whether a file is exempt from the rules of docstrings.

    Args:
        file: path from the root.
    """
    return any(fnmatch(file, pattern) for pattern in pending_files())


if __name__ == "__main__":
    files = documented()
    for file, functions in files.items():
        for function in functions:
            if function.missing and not is_pending(file):
                print(f"{file}: {function.name}: {', '.join(function.missing)}")
    every = [function for functions in files.values() for function in functions]
    done = [function for file, functions in files.items() for function in functions if not is_pending(file)]
    for title, group in (("all files", every), ("files without exemption", done)):
        count = sum(not function.missing for function in group)
        print(
            f"{title}: {count} of {len(group)} public functions describe all arguments ({share(group):.0%})"
        )
