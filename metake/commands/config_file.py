"""A file of options, `--config FILE`: read, checked, and named in the errors that its options cause."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.files import parse_json, read_text

OPTIONS = "options.json"  # in a folder of results
COMMAND = "command"  # key of the command's name in a file of options
SETTING_ERRORS = "settings"  # begins the error line of a setting


@dataclass(frozen=True)
class OptionsFile:
    """Options of a file.

    Attributes:
        path: the file.
        options: option, with `-` in its name -> value.
    """

    path: Path
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path, command: str) -> OptionsFile:
        """Options of a file, or of a folder of results.

        Args:
            file: value of `--config`.
            command: name of the command that reads it.

        Returns:
            The options.

        Raises:
            MetakeError: the file cannot be read, is no mapping, names an option twice, or is about another command.
        """
        path = file / OPTIONS if file.is_dir() else file
        names = [(str(name).replace("_", "-"), value) for name, value in read_mapping(path).items()]
        try:
            options = unique_mapping(names)
        except StandsTwiceError as error:
            raise MetakeError(f"{path}: {error}") from error
        named = options.pop(COMMAND, command)
        if named != command:
            raise MetakeError(
                f"{path}: {COMMAND}: options of metake {named}, not of metake {command}; give another file"
            )
        return cls(path, options)

    def without(self, names: Iterable[str]) -> OptionsFile:
        """The file without some options, which those of the command line replace.

        Args:
            names: the options.

        Returns:
            A file of the same path.
        """
        dropped = set(names)
        return OptionsFile(self.path, {name: v for name, v in self.options.items() if name not in dropped})

    def blamed(self, line: str, given: Mapping[str, Iterable[str]]) -> str | None:
        """An error line that names the file, if an option of the file caused the error.

        Args:
            line: the error, which begins with the option or with `settings`.
            given: option of the command line -> its values, which override the file.

        Returns:
            The line; None if the command line or something else caused the error.
        """
        found = re.match(r"(?:\w+: (?=--))?(?:--)?([a-z][\w-]*)(?=[ :])", line)
        if found is None:
            return None
        name = "set" if found[1] == SETTING_ERRORS else found[1]
        name = "methods" if name == "method" and "methods" in self.options else name
        if name not in self.options or (name != "set" and name in given):
            return None
        rest = line[found.end() :]
        if name == "set" and not self._sets(rest, given.get("set", ())):
            return None
        return f"{self.path}: {name}{rest}"

    def _sets(self, rest: str, overriding: Iterable[str]) -> bool:
        """Whether an error is about a setting of the file that the command line does not override."""
        said = re.split(r"[;(]", rest, maxsplit=1)[0]
        value = self.options["set"]
        pairs = value if isinstance(value, list | dict) else [value]
        names = {str(pair).partition("=")[0].strip() for pair in pairs}
        names -= {pair.partition("=")[0].strip() for pair in overriding}
        return any(re.search(rf"(?<!\w){re.escape(name.rpartition('.')[2])}(?!\w)", said) for name in names)


class StandsTwiceError(ValueError):
    """A key that stands twice in a mapping, of which readers take the last one silently."""

    def __init__(self, name: object) -> None:
        super().__init__(f"{name}: stands twice; remove one of them")


def unique_mapping(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Mapping of names and values.

    Args:
        pairs: names and values.

    Returns:
        The mapping.

    Raises:
        StandsTwiceError: two of the names are equal.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise StandsTwiceError(name)
        found[name] = value
    return found


def parse_yaml(text: str) -> Any:
    """Content of a YAML text; a key that stands twice raises a `StandsTwiceError`.

    Args:
        text: the text.

    Returns:
        Plain values.
    """
    import yaml

    visited: set[int] = set()

    def check(node: Any) -> None:
        if id(node) in visited or not isinstance(node, yaml.CollectionNode):
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            unique_mapping((key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for child in node.value:
            for each in child if isinstance(child, tuple) else (child,):
                check(each)

    check(yaml.compose(text, yaml.SafeLoader))
    return yaml.safe_load(text)


def read_mapping(path: Path) -> dict[Any, Any]:
    """Content of a TOML, YAML or JSON file.

    Args:
        path: the file.

    Returns:
        The mapping.

    Raises:
        MetakeError: the file cannot be read, names a key twice, or has another content.
    """
    kind = path.suffix.lower()
    if kind not in (".toml", ".yaml", ".yml", ".json"):
        raise MetakeError(
            f"--config {path}: must be a .toml, .yaml or .json file, or a folder with {OPTIONS}"
        )
    try:
        if kind == ".toml":
            content = tomllib.loads(read_text(path))
        elif kind == ".json":
            content = parse_json(read_text(path), unique_mapping)
        else:
            content = parse_yaml(read_text(path))
    except MetakeError:
        raise
    except StandsTwiceError as error:
        raise MetakeError(f"{path}: {error}") from error
    except Exception as error:  # TOMLDecodeError, YAMLError, a date of no calendar
        raise MetakeError(f"{path}: not {kind[1:].upper()} ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(content, dict):
        raise MetakeError(f"{path}: must be a mapping of options to values, as in model: demo")
    return content
