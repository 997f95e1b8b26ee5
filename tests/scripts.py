"""Calling the scripts of experiments/ as a user does, offline."""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch

PHASE = re.compile(r"^\w+: (.*: \d+\.\d s( \(.*\))?|statistics: collecting .*)\n", re.MULTILINE)
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
TEXTS = {p.stem: p.read_text(encoding="utf-8") for p in EXPERIMENTS.glob("*.py")}
SCRIPTS = {
    name: text for name, text in TEXTS.items() if re.search(r"^(def main\(|main = )", text, re.MULTILINE)
}


def origins(content):
    """The parts of a result file that say where their numbers come from."""
    if isinstance(content, list):
        return content
    if "searched" in content:
        return [content["searched"]]
    return [content] if "model" in content else [part for part in content.values() if isinstance(part, dict)]


def check_origins(folder):
    """Every result file says which model, method and version it is of, and when it was written unless it has a digest."""
    for path in sorted(Path(folder).glob("*.json")):
        if path.name in ("index.json", "options.json"):  # of formulas, not of a model; options of a command
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        wanted = ["model", "fingerprint", "method", "version", *([] if "digest" in content else ["written"])]
        assert origins(content), path
        for part in origins(content):
            assert not [name for name in wanted if not part.get(name)], (path, sorted(part))


def written(arguments):
    """The folder that a script's arguments name."""
    given = list(map(str, arguments))
    return given[given.index("--out") + 1] if "--out" in given else None


def call(script, *arguments, check=True):
    """The finished process of `python experiments/SCRIPT ...`; with `check` it must have succeeded."""
    command = [sys.executable, str(EXPERIMENTS / script), *map(str, arguments)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert not check or done.returncode == 0, done.stderr
    if done.returncode == 0 and (folder := written(arguments)):
        check_origins(folder)
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
    if not code and (folder := written(arguments)):
        check_origins(folder)
    return subprocess.CompletedProcess(given, code, out.getvalue(), said)


def refused(script, *arguments, out):
    """The one line with which a script refuses its arguments; nothing is written."""
    done = call_here(script, *arguments, "--out", out, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert not out.exists()
    return done.stderr
