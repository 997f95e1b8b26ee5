"""The figures of the theory: chosen by claim, checked row by row, the same bytes every time."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.figures import fidelity, suppression, trap  # noqa: F401  (they register themselves)
from experiments.figures.core import FIGURES, Data, Figure, axes
from theory.claims import CLAIMS

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "theorem_figures.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("claims", "words"), [("T9", "no claim 'T9'"), ("L5", "no figure shows L5"), (" ", "empty")]
)
def test_a_wrong_choice_is_one_line_and_writes_nothing(tmp_path, claims, words):
    done = run("--out", str(tmp_path / "out"), "--claims", claims)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_choice_writes_its_files_and_the_same_bytes_again(tmp_path):
    for folder in ("one", "two"):
        done = run("--out", str(tmp_path / folder), "--claims", "L2,P13")
        assert done.returncode == 0, done.stderr
    names = {f"{n}.{s}" for n in ("ball_ellipsoid", "closing_the_loop") for s in ("png", "pdf", "csv")}
    assert {p.name for p in (tmp_path / "one").iterdir()} == names | {"captions.md", "index.json"}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_tables_name_their_columns_and_hold_numbers(tmp_path):
    FIGURES["ball_ellipsoid"].write(tmp_path)
    with (tmp_path / "ball_ellipsoid.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["series", "x", "theory", "measured", "relation", "tolerance"]
    assert len(rows) == 17
    assert all(abs(float(r["measured"]) / float(r["theory"]) - 1) < 1e-6 for r in rows)


@pytest.mark.parametrize(
    ("relation", "measured", "holds"),
    [("equal", 1.0005, True), ("equal", 1.01, False), ("below", 0.5, True), ("below", 1.01, False),
     ("above", 1.5, True), ("above", 0.99, False), ("shown", 7.0, True)],
)  # fmt: skip
def test_a_broken_law_is_not_drawn(tmp_path, relation, measured, holds):
    def draw(data: Data):
        data.add("series", [0], [1], [measured], relation, 1e-3)
        return axes()[0]

    figure = Figure("probe", ("T1",), "", draw)
    if holds:
        assert figure.write(tmp_path)["name"] == "probe"
        assert (tmp_path / "probe.png").stat().st_size > 1000
    else:
        with pytest.raises(AssertionError, match="probe"):
            figure.write(tmp_path)
        assert not list(tmp_path.iterdir())


def test_every_figure_shows_registered_claims_and_says_what_to_see():
    known = {c.id for c in CLAIMS}
    for figure in FIGURES.values():
        assert set(figure.claims) <= known
        assert figure.caption.endswith(".")
    assert {"T1", "T1b", "T1e", "X2", "X3", "L2", "T2b", "T2c", "X5", "X6", "L4", "T3a", "T3b", "X4"} <= {
        c for f in FIGURES.values() for c in f.claims
    }
