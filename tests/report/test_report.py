"""Tables, figures and the page, from plain data."""

import os
import subprocess
import sys

import pytest

from metake.errors import MetakeError
from metake.methods.table import METHODS
from metake.report import figures
from metake.report.figures import plot_realization, plot_tradeoff
from metake.report.tables import markdown, render

BATCH = {
    "layers": [1, 2],
    "eta": [[0.5, 0.6], [0.3, 0.2]],
    "missing_before": [[1.0, 1.1], [0.7, 0.8]],
    "planned_norm": [1.0, 1.1],
    "predicted_missing": [[0.75, 0.7], [0.5, 0.5]],
    "missing_after": [0.5, 0.4],
}


def test_table_shows_every_cell_even_with_brackets():
    text = render("title", ["name", "n"], [["a [b]", "1"]])
    assert "a [b]" in text
    assert "title" in text
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_plot_realization_writes_every_format(tmp_path, suffix):
    path = plot_realization({"memit": [BATCH], "metake": [BATCH, BATCH]}, tmp_path / f"f.{suffix}")
    assert path.stat().st_size > 2000
    assert list(tmp_path.iterdir()) == [path]


def test_plot_realization_names_an_unknown_format(tmp_path):
    with pytest.raises(MetakeError, match=r"f\.doc"):
        plot_realization({"memit": [BATCH]}, tmp_path / "f.doc")
    assert not list(tmp_path.iterdir())


def test_figure_needs_no_backend(tmp_path):
    """Figures need no backend and leave the user's alone.

    In a process of its own, with a backend inherited that there is not: pyplot is never imported.
    """
    work = f"""
import os, pathlib, sys
from metake.report.figures import matplotlib, plot_realization
plot_realization({{"memit": [{BATCH!r}]}}, pathlib.Path("f.png"))
assert "matplotlib.pyplot" not in sys.modules
assert os.environ["MPLBACKEND"] == "no-such-backend"
before = dict(matplotlib.rcParams)
plot_realization({{"memit": [{BATCH!r}]}}, pathlib.Path("g.png"))
assert dict(matplotlib.rcParams) == before
"""
    environment = {**os.environ, "MPLBACKEND": "no-such-backend"}
    done = subprocess.run(
        [sys.executable, "-c", work],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f.png").read_bytes() == (tmp_path / "g.png").read_bytes()


def test_plot_tradeoff_draws_every_method(tmp_path):
    metrics = {m: 0.5 for m in ("efficacy", "generalization", "specificity", "agreement")}
    points = [
        {"method": m, "strength": s, **metrics, "interval": dict.fromkeys(metrics, (0.4, 0.6))}
        for m in ("memit", "metake")
        for s in (1.0, 10.0)
    ]
    assert plot_tradeoff(points, tmp_path / "t.png", "demo").stat().st_size > 2000


def test_looks_differ_between_methods_of_a_sequence(tmp_path, monkeypatch):
    """Every method of a sequence has a look of its own."""
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or path)
    shares = {"efficacy": 0.5, "generalization": 0.4, "specificity": 0.3, "attenuation": 0.2}
    points = [{"edits": n, **shares} for n in (10, 20)]
    methods = [*METHODS, "memit@first", "memit@second"]
    figures.plot_sequence({method: [points] for method in methods}, tmp_path / "curves.png")
    lines = drawn[0].axes[0].lines
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(methods)  # told apart without colors, too
    assert len(drawn[0].axes[3].lines) == len(methods)  # no width, no capacity
    assert [list(axis.lines[0].get_ydata()) for axis in drawn[0].axes] == [
        [50] * 2,
        [40] * 2,
        [30] * 2,
        [0.2] * 2,
    ]


def test_looks_of_a_labeled_method_differ_in_line():
    chosen = figures.line_styles(["memit", "metake@slow", "unknown"])
    assert chosen["memit"] == figures.LINE_STYLES["memit"]
    assert chosen["metake@slow"][0] == figures.LINE_STYLES["metake"][0]
    variant = figures.line_styles(["memit", "metake + compensated + past-keys"])[
        "metake + compensated + past-keys"
    ]
    assert variant[0] == figures.LINE_STYLES["metake"][0]
    assert len({look[1:] for look in chosen.values()}) == 3


def test_describe_realization_has_the_medians_of_the_last_layer():
    """eta .25 of (.3, .2); missing .5 / 1.0 and .4 / 1.1 of the plans: 43 %."""
    text = figures.describe_realization({"memit": [BATCH]})
    assert "memit: eta 0.25, 43 % of the planned residual still missing" in text


def test_plot_room_is_drawn_beside_attenuation(tmp_path, monkeypatch):
    """The capacity of a layer is drawn beside the attenuation.

    A batch of ten behind n - 10 others; a run that was never judged on the way has no attenuation to show.
    """
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or path)
    points = [
        {"edits": n, "efficacy": 0.5, "generalization": 0.4, "specificity": None, "attenuation": None}
        for n in (10, 40)
    ]
    figures.plot_sequence({"memit": [points]}, tmp_path / "curves.png", d_k=8, batch=10)
    *_, capacity = drawn[0].axes[3].lines
    edits, share = capacity.get_data()
    assert share.max() == 1
    assert "capacity" in drawn[0].legends[0].get_texts()[-1].get_text()
    at = share[(abs(edits - 40)).argmin()]
    assert at == pytest.approx(8 / 31, rel=0.02)
