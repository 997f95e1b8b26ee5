"""What figures show: the numbers behind their lines and bars, worked out here."""

from itertools import pairwise

import numpy as np
import pytest

from metake.report import exactness, figures
from metake.report.page import Picture
from metake.report.tables import markdown, render


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that was drawn, in place of its file."""
    found = []
    for module in (figures, exactness):
        monkeypatch.setattr(module, "save", lambda figure, path: found.append(figure) or path)
    return found


def bars_of(container):
    """Middle and ends of error bars."""
    line, _, (bars,) = container.lines
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    return line.get_xdata(), line.get_ydata(), ends


PLANNED = [1.0, 2.0, 4.0, 1e-9, 5.0]
BATCHES = [
    {
        "layers": [2, 5],
        "eta": [[0.1, 0.2, 0.3, 0.9], [0.2, 0.4, 0.8, 0.9]],
        "predicted_missing": [[0.95, 0.9, 0.85, 0.55], [0.8, 0.6, 0.2, 0.1]],
        "planned_norm": PLANNED[:4],
        "missing_before": [[1.0, 2.0, 4.0, 0.0], [0.9, 1.0, 1.0, 0.0]],
        "missing_after": [0.5, 0.4, 0.2, 0.0],
    },
    {
        "layers": [2, 5],
        "eta": [[0.8], [0.1]],
        "predicted_missing": [[0.6], [0.5]],
        "planned_norm": PLANNED[4:],
        "missing_before": [[5.0], [2.0]],
        "missing_after": [1.5],
    },
]


def test_plot_realization_has_medians_and_quartiles(drawn, tmp_path):
    """Plot realization has medians and quartiles of what is missing and of eta.

    Over all batches; an edit that planned nothing has no share that is missing, and has an eta.
    """
    figures.plot_realization({"memit": BATCHES}, tmp_path / "f.png")
    above, below = drawn[0].axes
    shares = np.array([[1, 1, 1, 1], [0.9, 0.5, 0.25, 0.4], [0.5, 0.2, 0.05, 0.3]])
    x, y, ends = bars_of(above.containers[0])
    assert x.tolist() == [0, 1, 2]
    np.testing.assert_allclose(y, np.percentile(shares, 50, axis=1))
    np.testing.assert_allclose(ends, np.percentile(shares, [25, 75], axis=1).T)
    etas = np.array([[0.1, 0.2, 0.3, 0.9, 0.8], [0.2, 0.4, 0.8, 0.9, 0.1]])
    x, y, ends = bars_of(below.containers[0])
    assert x.tolist() == [1, 2]
    np.testing.assert_allclose(y, [0.3, 0.4])
    np.testing.assert_allclose(ends, np.percentile(etas, [25, 75], axis=1).T)
    dotted = above.lines[-1]  # the prediction of the result, whatever shares and fit the method has
    np.testing.assert_allclose(dotted.get_ydata(), [1, 0.85, 0.5])
    assert [t.get_text() for t in above.get_xticklabels()] == ["plan", "layer 2", "layer 5"]
    assert [t.get_text() for t in below.get_xticklabels()] == ["2", "5"]


def test_plot_realization_separates_methods_of_other_layers(drawn, tmp_path):
    """Methods of other layers stand at their own places.

    A method of one layer among methods of several, each beside the other.
    """
    one = {
        "layers": [5],
        "eta": [[0.5]],
        "predicted_missing": [[0.5]],
        "planned_norm": [1.0],
        "missing_before": [[1.0]],
        "missing_after": [0.5],
    }
    figures.plot_realization({"memit": BATCHES, "rome": [one]}, tmp_path / "f.png")
    first, second = (bars_of(container)[0] for container in drawn[0].axes[1].containers)
    np.testing.assert_allclose(first, [0.85, 1.85])
    np.testing.assert_allclose(second, [2.15])
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["memit", "rome"]


def test_plot_tradeoff_orders_by_what_is_kept(drawn, tmp_path):
    """Specificity and agreement are to the right, from the smallest strength on.

    Efficacy, then generalization, with their own intervals, in per cent.
    """
    points = [
        {
            "method": "memit",
            "strength": strength,
            "efficacy": e,
            "generalization": g,
            "specificity": s,
            "agreement": s + 0.05,
            "interval": {"efficacy": (e - 0.1, e + 0.05), "generalization": (g - 0.2, g + 0.1)},
        }
        for strength, e, g, s in ((10.0, 0.7, 0.5, 0.9), (1.0, 0.9, 0.8, 0.6))
    ]
    figures.plot_tradeoff(points, tmp_path / "t.png", "demo")
    efficacy = ([90, 70], [80, 60], [95, 75])
    generalization = ([80, 50], [60, 30], [90, 60])
    for axis, right, (middle, low, high) in zip(
        drawn[0].axes, (60, 60, 65, 65), 2 * (efficacy, generalization), strict=True
    ):
        x, y, ends = bars_of(axis.containers[0])
        np.testing.assert_allclose(x, [right, right + 30])
        np.testing.assert_allclose(y, middle)
        np.testing.assert_allclose(ends, np.array([low, high]).T)
        (note,) = axis.texts
        assert (note.get_text(), tuple(map(round, note.xy))) == ("1", (right, middle[0]))
        assert axis.get_xlim() == (50, 102)
    small = [{**point, "specificity": 0.2} for point in points]
    figures.plot_tradeoff(small, tmp_path / "t.png", "demo")
    assert drawn[1].axes[0].get_xlim() == pytest.approx((10, 28))


def test_plot_exactness_has_a_point_per_method(drawn, tmp_path):
    """Agreement to the right, exact answers upwards; a panel per prompt, without one that a method lacks."""
    rows = [
        {
            "method": name,
            "mean": {"agreement": kept, "generation": exact, "generation_rephrase": exact / 2},
            "interval": {
                "agreement": [kept - 0.1, kept + 0.05],
                "generation": [exact - 0.2, exact + 0.1],
                "generation_rephrase": [0.0, exact],
            },
        }
        for name, kept, exact in (("metake", 0.9, 0.7), ("locft-bf", 0.4, 0.5))
    ]
    exactness.plot_exactness(rows, tmp_path / "e.png")
    left, right = drawn[0].axes
    assert [axis.get_title() for axis in drawn[0].axes] == ["edited prompt", "rephrased prompt"]
    for axis, name in ((left, "generation"), (right, "generation_rephrase")):
        for row, container in zip(rows, axis.containers, strict=True):
            line, _, (across, up) = container.lines
            assert line.get_xydata().tolist() == [
                [pytest.approx(100 * row["mean"][n]) for n in ("agreement", name)]
            ]
            for bar, metric, at in ((across, "agreement", 0), (up, name, 1)):
                ends = [100 * end for end in row["interval"][metric]]
                np.testing.assert_allclose(np.asarray(bar.get_segments())[0, :, at], ends, atol=1e-9)
    del rows[1]["interval"]["generation_rephrase"]
    exactness.plot_exactness(rows, tmp_path / "e.png")
    assert len(drawn[1].axes) == 1


def test_plot_sequence_has_mean_and_range_over_seeds(drawn, tmp_path):
    def points(*shares):
        return [
            {"edits": n, "efficacy": a, "generalization": 0.4, "specificity": 0.3, "attenuation": a / 2}
            for n, a in zip((10, 20), shares, strict=True)
        ]

    figures.plot_sequence(
        {"memit": [points(0.2, 0.6), points(0.4, 0.9), points(0.9, 0.9)]}, tmp_path / "c.png"
    )
    for at, scale in ((0, 100), (3, 0.5)):
        axis = drawn[0].axes[at]
        np.testing.assert_allclose(axis.lines[0].get_xdata(), [10, 20])
        np.testing.assert_allclose(axis.lines[0].get_ydata(), np.array([0.5, 0.8]) * scale)
        corners = axis.collections[0].get_paths()[0].vertices[:, 1]
        assert (corners.min(), corners.max()) == (pytest.approx(0.2 * scale), pytest.approx(0.9 * scale))
        assert pytest.approx(0.6 * scale) in [float(corner) for corner in corners]


def test_palette_differs_without_colors():
    """The palette has no two looks alike without colors."""
    looks = [look[1:] for look in figures.LINE_STYLES.values()]
    assert len(set(looks)) == len(looks)
    many = figures.line_styles([f"m{i}" for i in range(40)])
    assert len({look[1:] for look in many.values()}) == 40


def png(path, width, height):
    figure, _ = figures.panels(1, 1, figsize=(width, height))
    figure.savefig(path, dpi=10)
    return path


def test_picture_is_wide_by_ratio_or_vector_format(tmp_path):
    """A picture is wide beyond seven fifths of its height or drawn in vectors."""
    for width, height, shape in ((15, 10, "wide"), (13, 10, "tall"), (5, 10, "tall")):
        assert Picture(png(tmp_path / "f.png", width, height), "", "").shape == shape
    vectors = tmp_path / "f.svg"
    vectors.write_text("<svg/>")
    assert Picture(vectors, "", "").shape == "wide"
    assert Picture(vectors, "", "").source == "data:image/svg+xml;base64,PHN2Zy8+"


def test_table_aligns_names_left_and_numbers_right():
    lines = render("t", ["name", "number"], [["a", "1"], ["longer name", "100.0"]]).splitlines()
    row = next(line for line in lines if line.strip("│| ").startswith("a "))
    name, number = (cell for cell in row.strip("│|").replace("|", "│").split("│"))
    assert name.startswith(" a ")
    assert number.endswith("1 ")
    assert all(len(a) == len(b) for a, b in pairwise(lines[1:]))
    assert markdown(["a", "b", "c"], []) == "| a | b | c |\n| --- | ---: | ---: |\n"
