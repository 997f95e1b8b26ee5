"""Optional packages: checks that raise one line with the extra to install."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from metake.errors import MetakeError

OWN = ("metake", "theory", "verification", "experiments")


def install(extra: str) -> str:
    """The command that installs an extra.

    Args:
        extra: name of the extra.

    Returns:
        The command.
    """
    return f"pip install 'metake[{extra}]'"


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Context of imports that an extra provides.

    At the top of a script, `with command(NAME), needs(EXTRA):` ends the program with the one line.

    Args:
        extra: name of the extra.

    Yields:
        None: packages are imported.

    Raises:
        MetakeError: one of its packages is missing.
        ModuleNotFoundError: a module of this project is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN:
            raise
        raise MetakeError(f"the package {package} is missing; {install(extra)}") from error


def require(extra: str, *packages: str, what: str) -> None:
    """Check without an import that the packages of an extra are installed.

    Args:
        extra: name of the extra.
        *packages: names of its packages.
        what: purpose of the packages; begins the error line.

    Raises:
        MetakeError: one of them is missing.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MetakeError(f"{what}: the package {package} is missing; {install(extra)}")
