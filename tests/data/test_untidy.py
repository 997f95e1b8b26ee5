"""Untidy files of every format: what they mean is read as from the tidy file, and nothing is read as something else."""

import json
import warnings

import pytest

from metake.data.columns import parse_columns
from metake.data.record import Probe, Record, end_of_case
from metake.data.records import read_file
from metake.errors import MetakeError
from metake.evaluation.draws import draw_records
from metake.requests import EditRequest
from tests.data.test_readers import SHAPES, reading_of

FACT = {"prompt": "Ada Falk lives in", "subject": "Ada Falk", "target_new": "Oslo"}
FIELDS = {field for shape in SHAPES.values() for field in shape}


def records_of(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_file(path, subject_optional=True, **options).records


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("container", ["ids", "list in .jsonl", "indented list in .jsonl"])
def test_every_format_is_read_from_every_container(name, container, write):
    """An object of entries by id, and a list in a file that is named as JSON Lines, are read as the list."""
    shape, entries = SHAPES[name], [SHAPES[name], SHAPES[name]]
    wanted = records_of(write("tidy.json", json.dumps(entries)))
    content = {"17": shape, "4": shape} if container == "ids" else entries
    file = "untidy.json" if container == "ids" else "untidy.jsonl"
    assert (
        records_of(write(file, json.dumps(content, indent=1 if "indented" in container else None))) == wanted
    )


def test_single_entry_of_objects_is_no_file_of_ids(write):
    """An entry whose fields are all objects stays one entry."""
    (record,) = records_of(
        write("f.json", json.dumps({"requested_rewrite": SHAPES["counterfact"]["requested_rewrite"]}))
    )
    assert record.request.target_new == "Oslo"


@pytest.mark.parametrize("value", [None, float("nan")])
@pytest.mark.parametrize("name", SHAPES)
def test_every_format_is_recognized_among_empty_fields_of_all_others(name, value):
    """A table of several formats has the fields of all of them."""
    reading, tidy = reading_of(dict.fromkeys(FIELDS, value) | SHAPES[name]), reading_of(SHAPES[name])
    assert (reading.records, reading.formats) == (tidy.records, tidy.formats)
    assert reading.unused == {}


def test_entry_with_a_null_mark_is_of_its_format():
    entry = {**SHAPES["zsre"], "src": None}
    assert reading_of(entry).summary == "1 record, 1 left out: src is null (1)"


@pytest.mark.parametrize("name", ["counterfact", "mquake"])
def test_rewrites_may_have_numbers_and_no_old_target(name):
    def changed(rewrite):
        old = {"target_true": None} if name == "mquake" else {"target_true": {"str": 1968, "id": 3}}
        return {**rewrite, "target_new": {"str": 1969, "id": 4}, "relation_id": 7, **old}

    rewrites = SHAPES[name]["requested_rewrite"]
    new = [changed(r) for r in rewrites] if isinstance(rewrites, list) else changed(rewrites)
    reading = reading_of({**SHAPES[name], "requested_rewrite": new})
    assert reading.summary == "1 record, 0 left out"
    for record in reading.records:
        assert record.request.target_new == "1969"
        assert record.target_true == ("" if name == "mquake" else "1968")
        assert record.attribute == (None if name == "mquake" else ("7", "4"))


@pytest.mark.parametrize("questions", [["a?", "", "c?"], ["a?", None, "c?"], ["a?", 3, "c?"]])
@pytest.mark.parametrize(
    "answers", [["A", "B", "C"], [["A"], ["B"], ["C"]], ["A", None, "C"], ["A", "", "C"]]
)
def test_parts_of_a_long_answer_stay_with_their_questions(questions, answers):
    entry = {**SHAPES["unke"], "sub_question": questions, "sub_answer": answers}
    reading = reading_of(entry, subject_optional=True)
    (record,) = reading.records
    assert [(p.prompt, p.answers) for p in record.probes] == [("a?", ("A",)), ("c?", ("C",))]
    assert reading.dropped.total() == 1


@pytest.mark.parametrize("prompts", ["prompt", "question", "loc"])
@pytest.mark.parametrize("answers", ["ground_truth", "answers", "answer", "loc_ans"])
def test_object_of_lists_is_a_list_of_probes_under_every_name(prompts, answers):
    group = {prompts: ["p", "q", "r"], answers: ["a", ["b", "c"]]}
    reading = reading_of({**FACT, "portability": {"R": group}})
    assert reading.records[0].probes == (Probe("R", "p", ("a",)), Probe("R", "q", ("b", "c")))
    assert reading.dropped == {"R: no answer": 1}


@pytest.mark.parametrize("empty", ["", None, [], {}])
def test_empty_groups_are_no_probes(empty):
    reading = reading_of({**FACT, "portability": empty, "locality": empty})
    assert (reading.records[0].probes, reading.summary) == ((), "1 record, 0 left out")


def test_prompts_of_a_record_without_subject_are_about_no_subject():
    groups = {"N": [{"prompt": p, "ground_truth": "x"} for p in ("Rome is", "Bonn is")]}
    entry = {"prompt": "Who bakes?", "target_new": "Ada", "locality": groups}
    (record,) = reading_of(entry, subject_optional=True).records
    assert (record.locality, record.same_subject) == ("Rome is", ())


@pytest.mark.parametrize("field", ["target", "target_new"])
@pytest.mark.parametrize("other", ["target", "target_new"])
def test_named_column_stands_before_other_names_of_its_field(field, other, write):
    path = write(
        "f.json", json.dumps([{"prompt": "Ada is a", "subject": "Ada", other: "no", "answer": "yes"}])
    )
    (record,) = records_of(path, columns=parse_columns(f"{field}=answer"))
    assert record.request.target_new == "yes"


@pytest.mark.parametrize("name", [n for n, shape in SHAPES.items() if "requested_rewrite" not in shape])
def test_named_prompt_makes_a_fact_of_every_format(name, write):
    """`--columns prompt=...` is not overruled by the fields of another format."""
    entry = {**SHAPES[name], "mine": "Ada Falk is a", "name": "Ada Falk", "wanted": "baker"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fields of the other format
        reading = read_file(
            write("f.json", json.dumps([entry])),
            columns=parse_columns("prompt=mine,subject=name,target=wanted"),
        )
    assert [r.request for r in reading.records] == [EditRequest("{} is a", "Ada Falk", "baker")]


@pytest.mark.parametrize(
    "text",
    [
        ",prompt,subject,target\n0,Ada is a,Ada,baker\n1,Bo is a,Bo,smith\n",
        "prompt,subject,target,\nAda is a,Ada,baker,\nBo is a,Bo,smith,\n",
        "prompt;;subject;target;;\r\nAda is a;;Ada;baker;;\r\nBo is a;;Bo;smith;;\r\n",
    ],
)
def test_columns_without_name_and_content_are_left_out(text, write):
    """As pandas writes its index, and spreadsheets write empty columns."""
    assert [r.request.target_new for r in records_of(write("f.csv", text))] == ["baker", "smith"]


def test_filled_column_without_name_is_refused(write):
    with pytest.raises(MetakeError, match="must name every column once, not 'prompt', '', 'target'"):
        read_file(write("f.csv", "prompt,,target\nAda is a,Ada,baker\n"))


@pytest.mark.parametrize("count", range(1, 8))
def test_no_number_of_records_divides_a_case(count, write):
    """A case is read and drawn to its end, whose last record has the questions."""
    single = {**SHAPES["mquake"], "requested_rewrite": SHAPES["mquake"]["requested_rewrite"][:1]}
    path = write("f.json", json.dumps([SHAPES["mquake"], single, SHAPES["mquake"], SHAPES["mquake"]]))
    everything = records_of(path)
    limited = records_of(path, limit=count)
    assert limited == everything[: len(limited)]
    for chosen in (limited, draw_records(everything, count, 0), draw_records(everything, count, 1)):
        assert count <= len(chosen) <= count + 1
        assert chosen[-1].probes
        cases = [r.case for r in chosen if r.case is not None]
        assert all(cases.count(case) == 2 for case in cases)


def test_end_of_case_of_records_without_cases_is_their_number():
    records = [Record(EditRequest.from_text("Ada is a", "Ada", str(i))) for i in range(4)]
    assert [end_of_case(records, n) for n in (0, 1, 4, 9)] == [0, 1, 4, 4]
