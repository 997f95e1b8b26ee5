"""The texts of every case, and the sentences for a newcomer."""

import json

import pytest

from metake.evaluation.cases import case_records, dialogues, write_answers
from metake.evaluation.loops import ATTENUATION, explain_run

ASKED = ["Where was Ann born?", "Oslo", "Rome", "Ann hails from", "Bo was born in", "Bonn"]


def run(protocol="published", **answers):
    return {
        "edits": 1,
        "protocol": {"name": protocol},
        "requests": [ASKED],
        "before": {"answers": [("Rome", "Rome", "Ghent")]},
        "methods": [{"method": name, "answers": [each]} for name, each in answers.items()],
    }


def test_case_records_hold_every_text_in_full():
    long = "Oslo " + "and so on " * 100
    content = run(memit=(long, "the Rome", "Ghent"), rect=("", "Oslo", "Oslo"))
    edited, rephrased, neighbor = case_records(content, 2)
    assert edited == {
        "draw": 2,
        "record": 1,
        "kind": "edited",
        "prompt": "Where was Ann born?",
        "expected": "Oslo",
        "before": "Rome",
        "after": {
            "memit": {"answer": long, "right": True, "verdict": "the target"},
            "rect": {"answer": "", "right": False, "verdict": "no answer"},
        },
    }
    assert [rephrased["after"][name]["right"] for name in ("memit", "rect")] == [False, True]
    assert (neighbor["kind"], neighbor["expected"]) == ("neighbor", "Bonn")
    assert neighbor["after"]["memit"] == {"answer": "Ghent", "right": True, "verdict": "unchanged"}
    assert neighbor["after"]["rect"]["verdict"] == "changed"


@pytest.mark.parametrize(("protocol", "right"), [("published", False), ("wild", True)])
def test_verdicts_are_those_of_the_protocol(protocol, right):
    (edited, *_) = case_records(run(protocol, memit=("the OSLO", "", "Ghent")))
    assert edited["after"]["memit"]["right"] is right


def test_write_answers_has_every_draw_or_no_file(tmp_path):
    first, second = run(memit=("Oslo", "Oslo", "Ghent")), run(memit=("Bern", "Zürich", "Ghent"))
    del second["edits"], second["protocol"]
    assert write_answers({**first, "draws": [second]}, tmp_path) == ["answers.jsonl"]
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["draw"], line["kind"]) for line in found] == [
        (draw, kind) for draw in (0, 1) for kind in ("edited", "rephrased", "neighbor")
    ]
    assert "Zürich" in lines[4]
    silent = run(memit=("", "", ""))
    silent["before"]["answers"] = [("", "", "")]
    assert write_answers(silent, tmp_path) == []  # nothing was generated
    assert not list(tmp_path.iterdir())


def test_dialogue_counts_as_wrong_for_the_models_with_a_wrong_answer():
    (talk,) = dialogues(run(memit=("Oslo", "Oslo", "Ghent"), rect=("Oslo", "Rome", "Ghent")))
    assert talk.good == {"memit": True, "rect": False}
    assert talk.wrong == [0, 2]
    (talk,) = dialogues(run(memit=("Oslo", "Oslo", "Ghent")))
    assert talk.wrong == []


def planned(name, kind, eta, share, reached, right, rounds=1):
    batch = {"eta": [[eta, eta]], "realized_share": [share] * 2, "realized_norm": [reached] * 2}
    return {
        "method": name,
        "settings": {"planner": {"kind": kind}, "rounds": rounds},
        "batches": [batch],
        "per_record": {"generation_start": right},
    }


OPEN = planned("memit", "open-loop", 0.17, 0.38, 0.4, [1.0, 0.0])
CLOSED = planned("metake", "closed-loop", 0.2, 0.61, 0.76, [1.0, 1.0])
CONTROLS = [
    planned("memit-compensated", "compensated", 0.9, 0.9, 0.9, [0.0, 0.0]),
    planned("memit-iterated", "open-loop", 0.9, 0.9, 0.9, [0.0, 0.0], rounds=3),
    {"method": "ultraedit", "settings": {}, "batches": [{}], "per_record": {}},
]


def test_explain_run_tells_both_loops_in_four_sentences():
    assert explain_run({"edits": 2, "methods": [*CONTROLS, CLOSED, OPEN]}) == [
        ATTENUATION,
        "An open loop (memit) plans the shift as if all of it were written; a closed loop (metake) optimizes the plan for the "
        "loss after the solve.",
        "In this run the median eta is 0.17 with the open loop and 0.20 with the closed loop; the median realized share of the "
        "planned shift is 38 % with the open loop and 61 % with the closed loop.",
        "Relative to the hidden state's norm, the median shift that reached the last edited layer is 0.40 with the open loop "
        "and 0.76 with the closed loop; of 2 answers, 1 (memit) with the open loop and 2 (metake) with the closed loop begin "
        "with the target.",
    ]


def test_explain_run_leaves_out_what_the_run_does_not_have():
    alone = " ".join(explain_run({"edits": 2, "methods": [OPEN]}))
    assert "closed" not in alone
    assert "metake" not in alone
    silent = explain_run({"edits": 2, "methods": [{**CLOSED, "per_record": {}}, OPEN]})
    assert "answers" not in silent[3]
    assert explain_run({"edits": 2, "methods": CONTROLS}) == []
    assert explain_run({"edits": 2, "methods": [{"settings": {"kind": "given"}, "batches": []}]}) == []
