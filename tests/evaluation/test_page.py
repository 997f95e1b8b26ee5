"""The page of a comparison, from answers and settings that are written down here."""

from types import SimpleNamespace

import numpy as np
import pytest

from metake.evaluation import page
from metake.evaluation.compare import Comparison
from metake.evaluation.glossary import GLOSSARY
from metake.evaluation.metrics import PER_RECORD, Measurement
from metake.evaluation.page import (
    comparison_sections,
    dialogues,
    question,
    settings_line,
    write_comparison_page,
)

RIDGE = {"geometry": "ridge", "weight": 15000.0, "l2": 10.0, "layers": [3, 4], "steps": 25, "target": "plan", "meta_steps": 15}  # fmt: skip


def request(name, rephrase="", locality=""):
    """As a result file has it: prompt, target, truth, rephrase, locality, its answer."""
    return [f"Q: Where was {name} born?\nA:", "Oslo", "Rome", rephrase, locality, "Bonn" if locality else ""]


def content_of(requests, before, **after):
    return {
        "model": "demo", "edits": len(requests), "requests": requests, "before": {"answers": before},
        "methods": [{"method": name.replace("_", "-"), "answers": answers, "settings": RIDGE} for name, answers in after.items()],
    }  # fmt: skip


def test_dialogues_ask_the_edited_the_reworded_and_the_unrelated_question():
    """Each method's answer to each: right where it begins with the target, or stays as it was, or is true."""
    content = content_of(
        [request("Ann", "Ann hails from", "Bo was born in")], [("Rome", "Rome", "Ghent")],
        memit=[("Oslo, Norway", "Rome", "Ghent")], rect=[("Rome", "Oslo", "Bonn")], rome=[("", "Oslo", "Oslo")],
    )  # fmt: skip
    (dialogue,) = dialogues(content)
    assert dialogue.title == "Where was Ann born? → Oslo"
    assert dialogue.head == ["before", "memit", "rect", "rome"]
    assert [(line.kind, line.question) for line in dialogue.lines] == [
        ("edited", "Where was Ann born?"), ("reworded", "Ann hails from"), ("neighbour", "Bo was born in")
    ]  # fmt: skip
    said = [
        {name: (a.text, a.verdict, a.good) for name, a in line.answers.items()} for line in dialogue.lines
    ]
    assert said == [
        {"before": ("Rome", "", False), "memit": ("Oslo, Norway", "the target", True),
         "rect": ("Rome", "not the target", False), "rome": ("", "no answer", False)},
        {"before": ("Rome", "", False), "memit": ("Rome", "not the target", False),
         "rect": ("Oslo", "the target", True), "rome": ("Oslo", "the target", True)},
        {"before": ("Ghent", "", False), "memit": ("Ghent", "unchanged", True),
         "rect": ("Bonn", "changed, and true", True), "rome": ("Oslo", "changed", False)},
    ]  # fmt: skip


def test_dialogues_leave_out_what_was_not_asked_and_edits_without_any_answer():
    content = content_of(
        [request("Ann"), request("Bo"), request("Cy", locality="Di was born in")],
        [("Rome", "", ""), ("", "", ""), ("", "", "")],
        memit=[("", "", ""), ("", "", ""), ("", "", "Bonn")],
    )
    found = dialogues(content)
    assert [d.title for d in found] == ["Where was Ann born? → Oslo", "Where was Cy born? → Oslo"]
    assert [[line.kind for line in d.lines] for d in found] == [["edited"], ["edited", "neighbour"]]


def test_dialogues_are_of_the_first_twelve_edits_and_of_the_methods_that_are_named():
    names = [f"P{i}" for i in range(13)]
    content = content_of(
        [request(name) for name in names],
        [("Rome", "", "")] * 13,
        memit=[("Oslo", "", "")] * 13,
        rect=[("Rome", "", "")] * 13,
    )
    assert [d.title for d in dialogues(content)] == [f"Where was {name} born? → Oslo" for name in names[:12]]
    assert dialogues(content, ["rect"])[0].head == ["before", "rect"]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("Q: Who?\nA:", "Who?"), ("Ann is", "Ann is"), ("So Q: Who?\nA: he", "So Q: Who?\nA: he")],
)
def test_question_drops_the_frame_of_a_question_alone(prompt, read):
    assert question(prompt) == read


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "m: lambda 15,000, layers 3, 4, 25 steps"),
        ({"target": "bilevel"}, "m: lambda 15,000, layers 3, 4, 25 steps + 15 in the closed loop"),
        ({"geometry": "projected", "layers": [7]}, "m: L2 10, layers 7, 25 steps"),
        ({"geometry": "identity", "steps": 1}, "m: no constraint, layers 3, 4, 1 steps"),
    ],
)
def test_settings_line_names_the_constraint_of_the_geometry(changes, line):
    assert settings_line({**RIDGE, **changes}, "m") == line


@pytest.fixture
def comparison():
    """Two planned methods and one gradient step, over two edits, the first of which was answered."""

    def measured(efficacy):
        values = {name: np.array([efficacy if name == "efficacy" else np.nan, np.nan]) for name in PER_RECORD}
        return Measurement(values, float("nan"), float("nan"), [], [])

    names = {"memit": "plan", "metake": "bilevel", "ultraedit": "gradient"}
    batch = {"layers": [3, 4], "eta": [[0.5], [0.25]], "planned": [2.0], "missing_before": [[2.0], [1.5]],
             "missing_after": [1.0], "seconds": 1.0, "requests": [1, 2]}  # fmt: skip
    runs = [
        SimpleNamespace(method=name, settings=SimpleNamespace(target=target), after=measured(0.75), batches=[batch],
                        seconds_per_edit=0.5)
        for name, target in names.items()
    ]  # fmt: skip
    content = content_of(
        [request("Ann"), request("Bo")],
        [("Rome", "", ""), ("", "", "")],
        **{name: [("Oslo", "", ""), ("", "", "")] for name in names},
    )
    return Comparison(measured(0.25), runs, content)


@pytest.fixture
def drawn(monkeypatch):
    """The runs of every figure that was drawn, and its path; nothing is drawn."""
    found = []
    monkeypatch.setattr(page, "draw", lambda runs, figure: found.append((list(runs), figure)) or figure)
    return found


def test_sections_are_the_answers_then_the_table_with_the_figure_of_planned_methods(
    comparison, drawn, tmp_path
):
    figure = tmp_path / "f.png"
    answers, table = comparison_sections(comparison, figure, title="Facts", paragraphs=["Why."])
    assert answers.title == "Facts: answers"
    assert answers.paragraphs[0].startswith("The first 1 of 2 edits as questions")
    assert [d.title for d in answers.dialogues] == ["Where was Ann born? → Oslo"]
    assert (table.title, table.paragraphs[0]) == ("Facts", "Why.")
    line = "lambda 15,000, layers 3, 4, 25 steps"
    assert table.paragraphs[1] == f"Settings: memit: {line}; metake: {line}; ultraedit: {line}."
    assert (table.head, table.rows) == comparison.cells()
    assert drawn == [(["memit", "metake"], figure)]  # a gradient step plans no residual
    (picture,) = table.pictures
    assert picture.path == figure
    assert "memit: eta 0.25, 50 % of the planned residual still missing" in picture.alt


def test_sections_without_answers_are_the_table(comparison, drawn, tmp_path):
    (table,) = comparison_sections(comparison, tmp_path / "f.png", title="Facts", answers=False)
    assert len(table.paragraphs) == 1
    comparison.content["requests"].pop()
    comparison.content["edits"] = 1
    answers, _ = comparison_sections(comparison, tmp_path / "f.png", title="Facts")
    assert answers.paragraphs[0].startswith("Every edit as questions")


def test_a_figure_that_cannot_be_drawn_leaves_the_page_without_it(comparison, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "draw", lambda runs, figure: (_ for _ in ()).throw(RuntimeError("no fonts")))
    assert comparison_sections(comparison, tmp_path / "f.png", title="Facts")[-1].pictures == []
    for run in comparison.runs:
        run.settings.target = "gradient"
    monkeypatch.setattr(page, "draw", None)
    assert comparison_sections(comparison, tmp_path / "f.png", title="Facts")[-1].pictures == []


def test_the_page_says_what_its_numbers_are_and_what_attenuates(comparison, monkeypatch, tmp_path):
    written = {}
    monkeypatch.setattr(
        page, "write_page", lambda path, **content: written.update(path=path, **content) or path
    )
    drawn = []
    monkeypatch.setattr(page, "draw", lambda runs, figure: drawn.append(figure) or figure)
    path = tmp_path / "report.html"
    assert write_comparison_page(path, comparison) == written["path"] == path
    assert drawn == [tmp_path / "realisation.png"]
    assert written["title"] == "demo: 2 edits with memit, metake, ultraedit"
    assert written["glossary"] == {
        "Eff (%)": GLOSSARY["efficacy"],
        "s/edit (s)": GLOSSARY["seconds_per_edit"],
    }
    assert [section.title for section in written["sections"]] == [
        "Methods compared: answers",
        "Methods compared",
    ]
    assert "eta = rho / (1 + rho), with rho = k^T (lambda C)^-1 k" in written["sections"][-1].paragraphs[0]
