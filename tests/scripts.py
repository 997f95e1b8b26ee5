"""Calling the scripts of experiments/ as a user does, offline."""

import os
import subprocess
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def call(script, *arguments, check=True):
    """The finished process of `python experiments/SCRIPT ...`; with `check` it must have succeeded."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert not check or done.returncode == 0, done.stderr
    return done


def refused(script, *arguments, out):
    """The one line with which a script refuses its arguments; nothing is written."""
    done = call(script, *arguments, "--out", out, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert not out.exists()
    return done.stderr
