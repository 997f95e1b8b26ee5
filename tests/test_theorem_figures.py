"""The figures of the theory: chosen by claim, checked row by row, the same bytes every time."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.theorem_figures import main
from metake.figures import (
    core,
    gallery,  # noqa: F401 (registers the figures)
    measured,
)
from metake.figures.core import FIGURES, Data, Figure, RelationViolated, axes
from metake.report.figures import styled
from metake.shipped import ASSETS
from theory import fidelity, suppression, trap
from theory.claims import CLAIMS

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "theorem_figures.py"
FILES = ("png", "pdf", "csv")


@pytest.mark.parametrize(
    ("claims", "words"),
    [("T9", ("no claim 'T9'", "L2")), ("L2,L5", ("no figure shows L5", "L2")), (" , ", ("empty",))],
)
def test_theorem_figures_reports_a_wrong_choice_in_one_line(tmp_path, capsys, claims, words):
    """A wrong choice is one line and writes nothing."""
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "out"), "--claims", claims])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_theorem_figures_writes_the_chosen_files_reproducibly(tmp_path):
    """A choice writes exactly its files and the same bytes again.

    Once as a script started elsewhere, once in this process.
    """
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", "one", "--claims", "L2,X5"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    main(["--out", str(tmp_path / "two"), "--claims", "X5, L2"])
    names = {f"{n}.{s}" for n in ("ball_ellipsoid", "kl_mismatch") for s in FILES}
    for folder in ("one", "two"):
        assert {p.name for p in (tmp_path / folder).iterdir()} == names | {"captions.md", "index.json"}
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_theorem_figures_index_keeps_earlier_figures(tmp_path):
    """The index keeps figures that stood there."""
    for claims, before in (("X5", "not JSON"), ("X5", '[{"name": "of an older form"}, 1]'), ("L2", None)):
        if before is not None:
            (tmp_path / "index.json").write_text(before)
        main(["--out", str(tmp_path), "--claims", claims])
    entries = json.loads((tmp_path / "index.json").read_text())
    assert [e["name"] for e in entries] == ["ball_ellipsoid", "kl_mismatch"]
    captions = (tmp_path / "captions.md").read_text()
    for entry in entries:
        assert f"{entry['caption']} {entry['summary']}" in captions
        assert "Worst relative distance" in entry["summary"]


def test_theorem_figures_names_demo_models_that_a_wheel_leaves_out(tmp_path, monkeypatch, capsys):
    """A wheel contains one demo model; figures of others are drawn without them, or on that one."""
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("demo", "world"):
        (assets / name).symlink_to(ASSETS / name)
    monkeypatch.setattr(measured, "ASSETS", assets)
    main(["--out", str(tmp_path / "out"), "--claims", "P8,P15,L2"])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert [line.partition(", which")[0] for line in notes] == [
        "note: projection_limit: drawn without demo-llama",
        "note: typical_attenuation: drawn without demo-gptj, demo-llama",
    ]
    table = (tmp_path / "out" / "typical_attenuation.csv").read_text()
    assert {row["series"] for row in csv.DictReader(io.StringIO(table))} == {"demo", "facts, demo"}


@pytest.fixture(scope="module")
def drawn():
    """Every figure and its table, drawn once and not rendered."""
    kept = {}

    def draw(name):
        if name not in kept:
            data = Data()
            with styled(core.LAYOUT):
                kept[name] = FIGURES[name].draw(data), list(csv.DictReader(io.StringIO(data.csv())))
        return kept[name]

    return draw


@pytest.mark.parametrize("name", FIGURES)
def test_theorem_figures_points_obey_the_tables_line(drawn, name):
    """Read back from the CSV and judged here, not by the code that wrote it."""
    _, rows = drawn(name)
    assert list(rows[0]) == ["series", "x", "theory", "measured", "relation", "tolerance"]
    assert len(rows) > 10
    for row in rows:
        x, theory, measured, tolerance = (float(row[k]) for k in ("x", "theory", "measured", "tolerance"))
        assert np.isfinite([x, theory, measured]).all(), row
        assert 0 <= tolerance <= 0.01, row
        away, slack = measured - theory, tolerance * abs(theory)
        if row["relation"] == "equal":
            assert abs(away) <= slack, row
        elif row["relation"] == "below":
            assert away <= slack, row
        elif row["relation"] == "above":
            assert -away <= slack, row
        else:
            assert row["relation"] == "shown"
    assert any(row["relation"] != "shown" for row in rows)


@pytest.mark.parametrize("name", FIGURES)
def test_theorem_figures_text_fits_one_column(drawn, name):
    """Text can be read in one column."""
    figure, _ = drawn(name)
    assert figure.get_figwidth() == pytest.approx(3.3)
    figure.set_dpi(72)
    figure.canvas.draw()
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            assert text.get_fontsize() >= 7, text
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    pixel = 1 / 72  # to which places are rounded
    assert min(box.x0, box.y0) >= -pixel
    assert box.x1 <= width + pixel
    assert box.y1 <= height + pixel


WRONG = [
    ("attenuation_law", suppression, "attenuation", lambda rho: rho / (2 + rho)),
    ("suppression_bound", suppression, "suppression_bound", lambda n, e, M, mu: n**2 * ((1 - e) / M + e / M)),
    (
        "suppression_limit",
        suppression,
        "suppression_limit",
        lambda norm, height: norm**2 / (height + 2 * norm**2),
    ),
    ("projected_key", suppression, "projected_attenuation", lambda P, k, beta: k @ k / (beta + k @ k)),
    (
        "projection_limit",
        suppression,
        "penalized_geometry",
        lambda P, b, t: (b + t) * np.eye(len(P)) - 2 * t * P / 3,
    ),
    ("crosstalk", suppression, "retention", lambda S: S),
    ("room", suppression, "room", lambda S: float(np.trace(S))),
    ("room", suppression, "room_bound", lambda n, rank: rank / (rank + n) / 2),
    ("price", suppression, "priced_shift", lambda S, X, price: X @ suppression.retention(S)),
    ("price", suppression, "least_cost", lambda S, X: float(np.sum((X @ S) * X))),
    ("typical_attenuation", suppression, "mean_realizability", lambda d, weight: d / (2 * weight)),
    ("rounding", suppression, "rounding_bound", lambda eps, condition: eps),
    ("ball_ellipsoid", trap, "mismatch", lambda kappa: kappa),
    ("the_trap", trap, "two_sided_window", lambda theta, kappa, e, h: (theta, 1 / theta)),
    ("the_trap", trap, "aligned_displacement", lambda g, H, R: -R * g / np.linalg.norm(g)),
    ("kl_mismatch", trap, "relative_condition_bounds", lambda f, h: (1.0, max(f, h))),
    ("channel_drift", fidelity, "channel_drift", lambda e, c, mu, key: e / mu + key * c / (mu + c) / 2),
    ("proxy_error", fidelity, "error_bound", lambda gamma, last, gap, Gamma, q: gamma * last),
    ("descent", fidelity, "cosine_bound", lambda gamma, gap: 1 - gamma * gap),
    ("identity_transport", fidelity, "executed_fraction", np.mean),
    ("closing_the_loop", fidelity, "realized_after", lambda eta, a, T: 1 - (1 - a * eta) ** T),
]


@pytest.mark.parametrize(
    ("name", "module", "function", "wrong"), WRONG, ids=[f"{name}-{f}" for name, _, f, _ in WRONG]
)
def test_theorem_figures_draws_no_wrong_formula(tmp_path, monkeypatch, name, module, function, wrong):
    monkeypatch.setattr(module, function, wrong)
    with pytest.raises(RelationViolated, match=name):
        FIGURES[name].write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_theorem_figures_rejects_a_wrong_formula_per_figure():
    """Every figure has a wrong formula that it notices."""
    assert {name for name, *_ in WRONG} == set(FIGURES)


def test_theorem_figures_ends_with_one_line_on_violation(tmp_path, monkeypatch, capsys):
    """A broken law ends the run with one line."""
    monkeypatch.setattr(trap, "mismatch", lambda kappa: kappa)
    with pytest.raises(SystemExit) as stop:
        main(["--out", str(tmp_path / "out"), "--claims", "L2"])
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "broken" in line]
    assert len(lines) == 1
    assert "ball_ellipsoid" in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("relation", "measured", "holds"),
    [
        ("equal", 1.0005, True),
        ("equal", 1.01, False),
        ("below", 0.5, True),
        ("below", 1.01, False),
        ("above", 1.5, True),
        ("above", 0.99, False),
        ("shown", 7.0, True),
        ("shown", float("nan"), False),
    ],
)
def test_theorem_figures_writes_only_obeying_points(tmp_path, relation, measured, holds):
    """A figure is written only if its points obey."""

    def draw(data: Data):
        figure, axis = axes(1.0)
        data.points(axis, "series", [0], [1], [measured], relation, 1e-3)
        return figure

    figure = Figure("probe", ("T1",), "", draw)
    if holds:
        figure.write(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {f"probe.{s}" for s in FILES}
    else:
        with pytest.raises(RelationViolated, match="probe"):
            figure.write(tmp_path)
        assert not list(tmp_path.iterdir())


def test_theorem_figures_shows_registered_claims():
    """Every figure shows registered claims and has a caption."""
    known = {c.id for c in CLAIMS}
    for figure in FIGURES.values():
        assert set(figure.claims) <= known
        assert figure.caption.endswith(".")
    shown = {c for f in FIGURES.values() for c in f.claims}
    assert shown >= {
        "T1",
        "T1b",
        "T1c",
        "T1e",
        "X1",
        "X2",
        "X3",
        "X13",
        "P4",
        "P8",
        "P13",
        "P15",
        "X4",
        "L2",
        "T2b",
        "T2c",
        "X5",
        "X6",
        "L4",
        "T3a",
        "T3b",
        "T3c",
        "A1",
        "A2",
        "J2",
    }
