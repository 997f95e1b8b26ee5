"""The page of a comparison, from answers and settings that are written down here."""

from types import SimpleNamespace

import numpy as np
import pytest

from metake.evaluation import page
from metake.evaluation.cases import LEGEND, answer_sections, dialogues, question
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.page import (
    exactness_pictures,
    metric_table,
    result_section,
    settings_line,
    write_comparison_page,
    write_layers,
)
from metake.evaluation.results import Results
from metake.methods.combinators import metake
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.ultraedit import UltraEdit

RIDGE = LocateThenEdit(layers=(3, 4), label="memit")  # lambda 15,000 and 25 steps
METHODS = {"memit": RIDGE, "metake": metake(RIDGE, label="metake"), "ultraedit": UltraEdit(layers=(3, 4))}


BATCH = {
    "layers": [3, 4],
    "eta": [[0.5], [0.25]],
    "planned_norm": [2.0],
    "missing_before": [[2.0], [1.5]],
    "predicted_missing": [[0.75], [0.5]],
    "missing_after": [1.0],
    "realized_norm": [1.5],
    "realized_share": [0.75],
    "seconds": 1.0,
    "requests": [1, 2],
}


def request(name, rephrase="", locality=""):
    """As a result file has it: prompt, target, truth, rephrase, locality, its answer."""
    return [f"Q: Where was {name} born?\nA:", "Oslo", "Rome", rephrase, locality, "Bonn" if locality else ""]


def content_of(requests, before, **after):
    return {
        "model": "demo",
        "edits": len(requests),
        "requests": requests,
        "before": {"answers": before},
        "methods": [
            {
                "method": name.replace("_", "-"),
                "answers": answers,
                "settings": METHODS.get(name.replace("_", "-"), RIDGE).model_dump(),
                "batches": [BATCH],
                "interval": {},
                "per_record": {},
            }
            for name, answers in after.items()
        ],
    }


def test_dialogues_have_edited_reworded_and_unrelated_questions():
    """Each method's answer to each: right where it begins with the target, or stays as it was, or is true."""
    content = content_of(
        [request("Ann", "Ann hails from", "Bo was born in")],
        [("Rome", "Rome", "Ghent")],
        memit=[("Oslo, Norway", "Rome", "Ghent")],
        rect=[("Rome", "Oslo", "Bonn")],
        rome=[("", "Oslo", "Oslo")],
    )
    (dialogue,) = dialogues(content)
    assert dialogue.title == "Where was Ann born? → Oslo"
    assert dialogue.head == ["before", "memit", "rect", "rome"]
    assert [(line.kind, line.question) for line in dialogue.lines] == [
        ("edited", "Where was Ann born?"),
        ("rephrased", "Ann hails from"),
        ("neighbor", "Bo was born in"),
    ]
    said = [
        {name: (a.text, a.verdict, a.good) for name, a in line.answers.items()} for line in dialogue.lines
    ]
    assert said == [
        {
            "before": ("Rome", "", False),
            "memit": ("Oslo, Norway", "the target", True),
            "rect": ("Rome", "not the target", False),
            "rome": ("", "no answer", False),
        },
        {
            "before": ("Rome", "", False),
            "memit": ("Rome", "not the target", False),
            "rect": ("Oslo", "the target", True),
            "rome": ("Oslo", "the target", True),
        },
        {
            "before": ("Ghent", "", False),
            "memit": ("Ghent", "unchanged", True),
            "rect": ("Bonn", "changed, and true", True),
            "rome": ("Oslo", "changed", False),
        },
    ]


def test_dialogues_leave_out_questions_and_edits_without_answers():
    """Dialogues leave out what was not asked and edits without any answer."""
    content = content_of(
        [request("Ann"), request("Bo"), request("Cy", locality="Di was born in")],
        [("Rome", "", ""), ("", "", ""), ("", "", "")],
        memit=[("", "", ""), ("", "", ""), ("", "", "Bonn")],
    )
    found = dialogues(content)
    assert [d.title for d in found] == ["Where was Ann born? → Oslo", "Where was Cy born? → Oslo"]
    assert [[line.kind for line in d.lines] for d in found] == [["edited"], ["edited", "neighbor"]]


def test_dialogues_are_of_all_or_named_edits():
    names = [f"P{i}" for i in range(13)]
    content = content_of(
        [request(name) for name in names],
        [("Rome", "", "")] * 13,
        memit=[("Oslo", "", "")] * 13,
        rect=[("Rome", "", "")] * 13,
    )
    assert [d.title for d in dialogues(content)] == [f"Where was {name} born? → Oslo" for name in names]
    assert [d.title for d in dialogues(content, [12, 0])] == [
        f"Where was {name} born? → Oslo" for name in ("P12", "P0")
    ]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("Q: Who?\nA:", "Who?"), ("Ann is", "Ann is"), ("So Q: Who?\nA: he", "So Q: Who?\nA: he")],
)
def test_question_drops_the_frame_of_a_question_alone(prompt, read):
    assert question(prompt) == read


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "m: lam 15,000, layers 3-4, at most 25 steps"),
        ({"planner": "closed-loop", "meta_steps": 15}, "m: lam 15,000, layers 3-4, at most 40 steps"),
        ({"geometry": "projected", "layers": (7,)}, "m: l2 10, layers 7, at most 25 steps"),
        ({"geometry": "identity", "steps": 1}, "m, layers 3-4, at most 1 steps"),
    ],
)
def test_settings_line_names_the_constraint_of_the_geometry(changes, line):
    assert settings_line(RIDGE.updated(**changes, label="m")) == line


def test_settings_line_has_layers_of_methods_without_plan():
    """Settings line of a method without geometry or plan has its layers."""
    assert settings_line(METHODS["ultraedit"]) == "ultraedit, layers 3-4"


@pytest.fixture
def comparison():
    """Two planned methods and one gradient step, over two edits, the first of which was answered."""

    def measured(efficacy):
        values = {name: np.array([efficacy if name == "efficacy" else np.nan, np.nan]) for name in PER_RECORD}
        return Measurement(values, float("nan"), float("nan"), [], [])

    runs = [
        SimpleNamespace(method=method, after=measured(0.75), batches=[BATCH], seconds_per_edit=0.5)
        for method in METHODS.values()
    ]
    content = content_of(
        [request("Ann"), request("Bo")],
        [("Rome", "", ""), ("", "", "")],
        **{name: [("Oslo", "", ""), ("", "", "")] for name in METHODS},
    )
    return Results(measured(0.25), runs, content)


@pytest.fixture
def drawn(monkeypatch):
    """The runs of every figure that was drawn, and its path; nothing is drawn."""
    found = []
    monkeypatch.setattr(page, "draw", lambda runs, figure: found.append((list(runs), figure)) or figure)
    return found


def test_page_result_has_table_and_figure_of_planned_methods(comparison, drawn, tmp_path):
    figure = tmp_path / "f.png"
    table = result_section(comparison, figure, title="Facts", paragraphs=["Why."])
    assert (table.title, table.paragraphs[0]) == ("Facts", "Why.")
    assert table.paragraphs[1] == (
        "Settings: memit: lam 15,000, layers 3-4, at most 25 steps; "
        "metake: lam 15,000, layers 3-4, at most 40 steps; ultraedit, layers 3-4."
    )
    assert (table.head, table.rows) == metric_table(comparison)
    assert drawn == [(["memit", "metake"], figure)]  # a gradient step plans no residual
    (picture,) = table.pictures
    assert picture.path == figure
    assert picture.caption == (
        "Above: residual that is still missing after each layer's write, relative to the planned one; dotted: the "
        "prediction from eta alone, as if every layer's write reached the last layer unchanged. Below: attenuation "
        "eta. Medians over the edits, bars: quartiles."
    )
    assert "memit: eta 0.25, 50 % of the planned residual still missing" in picture.alt


def test_page_answers_state_their_number_and_marks(comparison):
    """Answers say how many edits they are of and what marks mean."""
    (answers,) = answer_sections(comparison.content, "Facts")
    assert answers.title == "Facts"
    assert answers.paragraphs[0] == f"1 of 2 edits, with the answers before and after. {LEGEND}"
    assert [d.title for d in answers.dialogues] == ["Where was Ann born? → Oslo"]
    comparison.content["requests"].pop()
    comparison.content["edits"] = 1
    assert answer_sections(comparison.content, "Facts")[0].paragraphs[0].startswith("All edits, with")
    comparison.content["edits"] = 0
    assert answer_sections(comparison.content, "Facts") == []


def test_metric_table_has_a_row_per_metric_with_unit(comparison):
    rows = comparison.content["methods"]
    rows[0]["interval"] = {"efficacy": [0.5, 0.996]}
    rows[1]["interval"] = {"efficacy": [0.75, 0.75]}  # of equal values, which say nothing about others
    head, found = metric_table(comparison)
    assert head == ["metric", "unedited", "memit", "metake", "ultraedit"]
    assert found == [
        ["Eff (%)", "25.0", "75.0 [50, 100]", "75.0", "75.0"],
        ["s/edit (s)", "-", "0.50", "0.50", "0.50"],
    ]


def test_metric_table_has_intervals_of_nats_in_nats(comparison):
    comparison.before.values["kl"][:] = 0.0
    for run in comparison.runs:
        run.after.values["kl"][:] = 0.5
    comparison.content["methods"][2]["interval"] = {"kl": [0.125, 1.0]}
    (kl,) = [row for row in metric_table(comparison)[1] if row[0] == "KL (nats)"]
    assert kl[1:] == ["0.00", "0.50", "0.50", "0.50 [0.12, 1.00]"]


def test_layers_are_written_as_the_option_takes_them():
    assert [write_layers(layers) for layers in ([4, 5, 6], [3, 5], [7])] == ["4-6", "3,5", "7"]


def test_page_omits_a_figure_that_fails(comparison, monkeypatch, tmp_path):
    """A figure that cannot be drawn leaves the page without it."""
    monkeypatch.setattr(page, "draw", lambda runs, figure: (_ for _ in ()).throw(RuntimeError("no fonts")))
    assert result_section(comparison, tmp_path / "f.png", title="Facts").pictures == []
    for run in comparison.runs:
        run.method = METHODS["ultraedit"]
    monkeypatch.setattr(page, "draw", None)
    assert result_section(comparison, tmp_path / "f.png", title="Facts").pictures == []


def test_page_has_the_figure_of_free_answers_for_several_methods(comparison, monkeypatch, tmp_path):
    """Exact free answers against agreement; none for one method, or for methods without either."""
    monkeypatch.setattr(page, "draw_exactness", lambda rows, figure: figure)
    figure, rows = tmp_path / "exactness.png", comparison.content["methods"]
    assert exactness_pictures(rows, figure) == []
    for row in rows:
        row["interval"] = {"generation": [0.25, 0.5]}
    assert exactness_pictures(rows, figure) == []
    for row in rows:
        row["interval"]["agreement"] = [0.5, 1.0]
    assert [picture.path for picture in exactness_pictures(rows, figure)] == [figure]
    assert exactness_pictures(rows[:1], figure) == []


def test_page_explains_numbers_and_attenuation(comparison, monkeypatch, tmp_path):
    """The page says what its numbers are and what attenuates."""
    written = {}
    monkeypatch.setattr(
        page, "write_page", lambda path, **content: written.update(path=path, **content) or path
    )
    drawn = []
    monkeypatch.setattr(page, "draw", lambda runs, figure: drawn.append(figure) or figure)
    path = tmp_path / "report.html"
    assert write_comparison_page(path, comparison) == written["path"] == path
    assert drawn == [tmp_path / "realization.png"]
    assert written["title"] == "demo: 2 edits with memit, metake, ultraedit"
    assert written["glossary"] == {
        "Eff (%)": GLOSSARY["efficacy"],
        "s/edit (s)": GLOSSARY["seconds_per_edit"],
    }
    short, compared, _ = written["sections"]
    assert [section.title for section in written["sections"]] == ["In short", "Methods compared", "Answers"]
    assert short.paragraphs[0].startswith("Attenuation: ")
    assert "eta = rho / (1 + rho), with rho = k^T (lambda C)^-1 k" in compared.paragraphs[0]
