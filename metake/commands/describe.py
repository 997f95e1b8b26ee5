"""Table of the options of all commands, for docs/command-line.md."""

from __future__ import annotations

from typing import Any

import typer


def describe_options(app: typer.Typer) -> str:
    """Markdown table of all options: name, commands that have it, help.

    An option whose help differs between commands has a row for each.

    Args:
        app: the application.

    Returns:
        The table, by name.
    """
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    rows: dict[tuple[str, str], list[str]] = {}
    for command in commands.values():
        for option in command.params:
            if option.opts[0].startswith("--"):
                names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
                rows.setdefault((names, option.help.replace("|", "\\|")), []).append(str(command.name))
    lines = [f"| {names} | {', '.join(users)} | {text} |" for (names, text), users in sorted(rows.items())]
    return "\n".join(["| option | commands | meaning |", "| --- | --- | --- |", *lines, ""])
