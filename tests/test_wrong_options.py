"""Wrong option values of every command: one line with the remedy on stderr, nothing on stdout, exit code 2, no files."""

import pytest

from metake.shipped import ASSETS
from tests.cases import EDIT, EVALUATE
from tests.scripts import PHASE

DATA = ["--data", ASSETS / "world" / "dev.json"]
STATS = ["stats", "--model", "demo"]
WRONG = {
    "set without value": ([*EDIT, "--set", "nonsense"], "--set nonsense: write NAME=VALUE"),
    "set without name": ([*EDIT, "--set", "=3"], "--set =3: write NAME=VALUE"),
    "set unknown value": ([*EDIT, "--set", "allocation=magic"], "known: spread"),
    "set not a number": ([*EDIT, "--set", "lr=NaN"], "lr: input should be a finite number"),
    "layers a": ([*EDIT, "--layers", "a"], "layers: cannot read 'a'; write 4,5,6 or 4-8"),
    "layers empty": ([*EDIT, "--layers", ""], "write 4,5,6 or 4-8"),
    "layers falling": ([*EDIT, "--layers", "5-3"], "cannot read '5-3'; write 4,5,6 or 4-8"),
    "layers of stats": ([*STATS, "--layers", "x"], "write 4,5,6 or 4-8"),
    "two sources of statistics": (
        [*EDIT, "--stats", "s.safetensors", "--text", "t.txt"],
        "--text: --stats has statistics already; give one of the two",
    ),
    "dtype": ([*EDIT, "--dtype", "float99"], "did you mean 'float64'"),
    "device": ([*EDIT, "--device", "tpu"], "try cpu"),
    "methods": ([*EVALUATE[:-1], "x", *DATA], "method: unknown 'x'; known: rome"),
    "no methods": ([*EVALUATE[:-1], ",", *DATA], "write e.g. --methods metake,memit"),
    "edits": ([*EVALUATE, *DATA, "--edits", "x"], "see metake evaluate --help"),
    "batch": ([*EVALUATE, *DATA, "--batch", "1.5"], "see metake evaluate --help"),
    "tokens": ([*STATS, "--tokens", "many"], "see metake stats --help"),
    "hparams": ([*EDIT, "--hparams", "none.json"], "none.json: cannot be read"),
    "hparams of no method": ([*EDIT, "--hparams", "magic=x.json"], "unknown 'magic'; known: metake"),
    "missing option": (["apply"], "see metake apply --help"),
    "unknown option": (["models", "--color"], "see metake models --help"),
    "unknown command": (["edti"], "Did you mean 'edit'"),
    "empty model": (["ask", "--model", "", "x"], "must be a name"),
    "ask without a value": (["ask", "--model"], "requires an argument; see metake --help"),
}


@pytest.mark.parametrize("case", WRONG)
def test_command_reports_a_wrong_option_with_its_remedy(case, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, remedy = WRONG[case]
    more = ["--out", "o"] if arguments[0] in ("edit", "evaluate", "stats") else []
    code, out, errors = call(*arguments, *more)
    assert (code, out) == (2, "")
    (line,) = PHASE.sub("", errors).splitlines()
    assert line.startswith("metake: error: ")
    assert remedy in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [EDIT, [*EVALUATE, *DATA], STATS, ["apply", "--model", "demo", "--delta", "x"]]
)
def test_command_refuses_an_empty_path(command, call, monkeypatch, tmp_path):
    """An empty path is not the current folder."""
    monkeypatch.chdir(tmp_path)
    code, out, errors = call(*command, "--out", "")
    assert (code, out) == (2, "")
    assert errors == "metake: error: --out: the path is empty; name a place, or . for the current folder\n"
    assert not list(tmp_path.iterdir())
