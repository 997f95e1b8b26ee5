"""How a program ends when the world outside fails it."""

import os
import subprocess
import sys

import pytest

from metake.console import command
from metake.errors import MetakeError

PROGRAM = "from metake.console import command\nwith command('p'):\n    print('x' * 100_000, flush=True)"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device"), "p: error: No space left on device"),
        (
            PermissionError(13, "Permission denied", "/a/\x1b[2Jb"),
            r"p: error: /a/\x1b[2Jb: Permission denied",
        ),
        (ConnectionError("reset by peer"), "p: error: reset by peer"),
    ],
)
def test_command_reports_a_system_error_in_one_line(capsys, error, line):
    with pytest.raises(SystemExit) as ended, command("p"):
        raise error
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_command_reports_a_full_output_in_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, encoding="utf-8"
        )
    assert (done.returncode, done.stderr) == (2, "p: error: No space left on device\n")


def test_error_line_is_one_line(capsys):
    """Whatever names of files and subjects hold."""
    with pytest.raises(SystemExit), command("p"):
        raise MetakeError("a\nb\x1b[31m: no such file")
    assert capsys.readouterr().err == "p: error: a\\nb\\x1b[31m: no such file\n"
