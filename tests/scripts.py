"""Calling the scripts of experiments/ as a user does, offline."""

import contextlib
import importlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch

PHASE = re.compile(r"^\w+: .*: \d+\.\d s( \(.*\))?\n", re.MULTILINE)
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def call(script, *arguments, check=True):
    """The finished process of `python experiments/SCRIPT ...`; with `check` it must have succeeded."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert not check or done.returncode == 0, done.stderr
    return done


def call_here(script, *arguments, check=True):
    """The same in this process, and without the durations of phases on stderr: starting another takes seconds.

    With `check` an interruption is passed on.
    """
    module = importlib.import_module(f"experiments.{script.removesuffix('.py')}")
    out, errors, threads, code = io.StringIO(), io.StringIO(), torch.get_num_threads(), 0
    given = [script, *map(str, arguments)]
    with (
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            module.main()
        except SystemExit as ended:
            code = ended.code
        finally:
            torch.set_num_threads(threads)
    if check and code == 130:
        raise KeyboardInterrupt
    said = PHASE.sub("", errors.getvalue())
    assert not check or code == 0, said
    return subprocess.CompletedProcess(given, code, out.getvalue(), said)


def refused(script, *arguments, out):
    """The one line with which a script refuses its arguments; nothing is written."""
    done = call_here(script, *arguments, "--out", out, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert not out.exists()
    return done.stderr
