"""Records are read from both formats, with complaints that name file, record and field."""

import json
from pathlib import Path

import pytest

from metake.data.records import parse_records, read_records
from metake.data.world import World
from metake.errors import MetakeError
from metake.models.load import ASSETS

ZSRE = {"subject": "Ada", "src": "Where was Ada born?", "pred": "Rome", "rephrase": "What is Ada's birthplace?",
        "alt": "Oslo", "answers": ["Oslo"], "loc": "nq question: who wrote it", "loc_ans": "Bo", "cond": "-"}  # fmt: skip
FLAT = {"case_id": 1, "prompt": "Ada was born in", "target_new": "Oslo", "subject": "Ada", "ground_truth": "Rome",
        "rephrase_prompt": "Ada's birthplace is", "locality_prompt": "Bo was born in",
        "locality_ground_truth": "Bonn"}  # fmt: skip


def test_zsre_and_counterfact_give_the_same_shape():
    a, b = parse_records(Path("f"), [ZSRE, FLAT])
    assert a.request.prompt == "Where was {} born?"
    assert (a.request.target, b.request.target) == ("Oslo", "Oslo")
    assert a.locality == "nq question: who wrote it?"  # the file leaves the question mark out
    assert (a.truth, b.truth, b.locality_answer) == ("Rome", "Rome", "Bonn")


MULTI = {
    "case_id": 1, "paraphrase_prompts": ["Ada's birthplace is", "Ada hails from"],
    "neighborhood_prompts": ["Bo was born in", "Cy was born in"], "generation_prompts": ["Ada grew up"],
    "requested_rewrite": {"prompt": "{} was born in", "subject": "Ada", "target_new": {"str": "Oslo", "id": "Q1"},
                          "target_true": {"str": "Rome", "id": "Q2"}, "relation_id": "P19"},
}  # fmt: skip


def test_the_original_counterfact_format():
    record = parse_records(Path("f"), [MULTI])[0]
    assert (record.request.text, record.request.target, record.rival) == ("Ada was born in", "Oslo", "Rome")
    assert record.rephrases == ("Ada's birthplace is", "Ada hails from")
    assert (record.rephrase, record.locality, record.locality_answer) == (
        "Ada's birthplace is", "Bo was born in", "Rome"
    )  # fmt: skip
    assert len(record.neighbours) == 2
    assert record.generation_prompts == ("Ada grew up",)
    assert record.attribute == ("P19", "Q1")
    flat = parse_records(Path("f"), [FLAT, {**FLAT, "locality_ground_truth": "Rome"}])
    assert [r.neighbours for r in flat] == [(), ("Bo was born in",)]  # a neighbour's answer is the old target
    assert [r.rival for r in flat] == ["Rome", "Rome"]


@pytest.mark.parametrize("change", [{"relation_id": None}, {"target_new": {"str": "Oslo"}}])
def test_the_ids_of_an_attribute_are_optional(change):
    record = parse_records(
        Path("f"), [{**MULTI, "requested_rewrite": {**MULTI["requested_rewrite"], **change}}]
    )[0]
    assert record.attribute is None
    assert record.request.target == "Oslo"
    assert parse_records(Path("f"), [FLAT])[0].attribute is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"paraphrase_prompts": []}, "paraphrase_prompts is empty"),
        ({"neighborhood_prompts": "x"}, "neighborhood_prompts must be a list of texts"),
        ({"requested_rewrite": "x"}, "requested_rewrite must be an object"),
        ({"requested_rewrite": {**MULTI["requested_rewrite"], "target_new": {}}}, "no field 'str'"),
        (
            {"requested_rewrite": {**MULTI["requested_rewrite"], "relation_id": 19}},
            "relation_id must be a text",
        ),
        ({"requested_rewrite": {**MULTI["requested_rewrite"], "prompt": "Ada was"}}, "holds 0 gaps"),
    ],
)
def test_what_is_missing_in_the_original_format_is_named(change, complaint):
    with pytest.raises(MetakeError, match=complaint):
        parse_records(Path("f.json"), [{**MULTI, **change}])


def test_braces_case_and_repeated_subjects():
    odd = {**ZSRE, "subject": "ada {x}", "src": "Where was Ada {x} (not Ada {y}) born?"}
    record = parse_records(Path("f"), [odd])[0]
    assert record.request.subject == "Ada {x}".replace("{", "{")
    assert record.request.prompt.count("{}") == 1
    twice = {**ZSRE, "src": "Ada, is it Ada?"}
    assert parse_records(Path("f"), [twice])[0].request.prompt == "{}, is it Ada?"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"subject": None}, "record 0 has no field 'subject'"),
        ({"rephrase": None}, "record 0 has no field 'rephrase'"),
        ({"loc": None}, "record 0 has no field 'loc'"),
        ({"loc_ans": " "}, "loc_ans is empty"),
        ({"answers": []}, "answers must be a list"),
        ({"answers": [" "]}, "the target, is empty"),
        ({"subject": "Bob"}, "'Bob' is not in the prompt"),
        ({"subject": ""}, "subject is empty"),
        ({"src": 3}, "src must be a text"),
        ({"src": None}, "neither 'src'"),
    ],
)
def test_what_is_missing_is_named(change, complaint):
    content = {k: v for k, v in {**ZSRE, **change}.items() if v is not None}
    with pytest.raises(MetakeError, match=complaint):
        parse_records(Path("f.json"), [content])


def test_files_that_are_no_records(write):
    for text, complaint in (
        ("{", "not JSON"),
        ("[]", "at least one"),
        ("{}", "a list"),
        ("[3]", "not an object"),
    ):
        with pytest.raises(MetakeError, match=complaint):
            read_records(write("x.json", text))


def test_the_shipped_records_are_the_worlds():
    """The files in the package are what the world writes, and nobody is in both parts."""
    dev, test = World().records()
    assert json.loads((ASSETS / "world" / "dev.json").read_text()) == dev
    assert json.loads((ASSETS / "world" / "test.json").read_text()) == test
    assert len(dev) + len(test) == len(World().facts) >= 2500
    assert not {r["subject"] for r in dev} & {r["subject"] for r in test}


def test_the_real_facts_are_readable_and_keep_neighbours_apart():
    records = read_records(ASSETS / "world" / "real_facts.json")
    assert len(records) >= 10
    for record in records:
        assert record.request.subject in record.rephrase
        assert record.request.subject not in record.locality
        assert record.request.target != record.truth
