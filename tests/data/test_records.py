"""Records are read from every format, with complaints that name file, record and field."""

import csv
import json
import re
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest

from metake.data.records import Record, parse_records, read_records
from metake.data.world import World
from metake.errors import MetakeError
from metake.requests import EditRequest
from metake.shipped import ASSETS

ZSRE = {
    "subject": "Ada",
    "src": "Where was Ada born?",
    "pred": "Rome",
    "rephrase": "What is Ada's birthplace?",
    "alt": "Oslo",
    "answers": ["Oslo"],
    "loc": "nq question: who wrote it",
    "loc_ans": "Bo",
    "cond": "-",
}
FLAT = {
    "case_id": 1,
    "prompt": "Ada was born in",
    "target_new": "Oslo",
    "subject": "Ada",
    "ground_truth": "Rome",
    "rephrase_prompt": "Ada's birthplace is",
    "locality_prompt": "Bo was born in",
    "locality_ground_truth": "Bonn",
}


def test_parse_records_gives_zsre_and_counterfact_one_shape():
    a, b = parse_records(Path("f"), [ZSRE, FLAT])
    assert a.request.prompt == "Where was {} born?"
    assert (a.request.target_new, b.request.target_new) == ("Oslo", "Oslo")
    assert a.locality == "nq question: who wrote it?"  # the file leaves the question mark out
    assert (a.ground_truth, b.ground_truth, b.locality_answer) == ("Rome", "Rome", "Bonn")


MULTI = {
    "case_id": 1,
    "paraphrase_prompts": ["Ada's birthplace is", "Ada hails from"],
    "neighborhood_prompts": ["Bo was born in", "Cy was born in"],
    "generation_prompts": ["Ada grew up"],
    "requested_rewrite": {
        "prompt": "{} was born in",
        "subject": "Ada",
        "target_new": {"str": "Oslo", "id": "Q1"},
        "target_true": {"str": "Rome", "id": "Q2"},
        "relation_id": "P19",
    },
}


def test_parse_records_reads_original_counterfact():
    record = parse_records(Path("f"), [MULTI])[0]
    assert (record.request.text, record.request.target_new, record.target_true) == (
        "Ada was born in",
        "Oslo",
        "Rome",
    )
    assert record.rephrases == ("Ada's birthplace is", "Ada hails from")
    assert (record.rephrase, record.locality, record.locality_answer) == (
        "Ada's birthplace is",
        "Bo was born in",
        "Rome",
    )
    assert len(record.neighbors) == 2
    assert record.generation_prompts == ("Ada grew up",)
    assert record.attribute == ("P19", "Q1")
    flat = parse_records(Path("f"), [FLAT, {**FLAT, "locality_ground_truth": "Rome"}])
    assert [r.neighbors for r in flat] == [(), ("Bo was born in",)]  # a neighbor's answer is the old target
    assert [r.target_true for r in flat] == ["Rome", "Rome"]


@pytest.mark.parametrize("change", [{"relation_id": None}, {"target_new": {"str": "Oslo"}}])
def test_parse_records_takes_attributes_without_ids(change):
    record = parse_records(
        Path("f"), [{**MULTI, "requested_rewrite": {**MULTI["requested_rewrite"], **change}}]
    )[0]
    assert record.attribute is None
    assert record.request.target_new == "Oslo"
    assert parse_records(Path("f"), [FLAT])[0].attribute is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"paraphrase_prompts": [1]}, "paraphrase_prompts must be a text or a list of texts"),
        ({"neighborhood_prompts": 3}, "neighborhood_prompts must be a text or a list of texts"),
        ({"requested_rewrite": "x"}, "requested_rewrite must be an object"),
        ({"requested_rewrite": {**MULTI["requested_rewrite"], "target_new": {}}}, "no field 'str'"),
        (
            {"requested_rewrite": {**MULTI["requested_rewrite"], "relation_id": {}}},
            "relation_id must be a text",
        ),
        ({"requested_rewrite": {**MULTI["requested_rewrite"], "prompt": "Ada was"}}, "holds 0 gaps"),
    ],
)
def test_parse_records_names_fields_missing_in_original_counterfact(change, complaint):
    with pytest.raises(MetakeError, match=complaint):
        parse_records(Path("f.json"), [{**MULTI, **change}])


def test_parse_records_keeps_braces_case_and_repeated_subjects():
    odd = {**ZSRE, "subject": "ada {x}", "src": "Where was Ada {x} (not Ada {y}) born?"}
    record = parse_records(Path("f"), [odd])[0]
    assert record.request.subject == "Ada {x}"
    assert record.request.text == odd["src"]
    twice = {**ZSRE, "src": "Ada, is it Ada?"}
    assert parse_records(Path("f"), [twice])[0].request.prompt == "{}, is it Ada?"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"subject": None}, "record 1 has no field 'subject'"),
        ({"rephrase": 3}, "record 1: rephrase must be a text, not a number"),
        ({"loc": None}, "record 1: loc_ans needs loc beside it"),
        ({"loc_ans": " "}, "loc needs loc_ans beside it"),
        ({"answers": []}, "answers is empty"),
        ({"answers": [" "]}, "answers is empty"),
        ({"answers": {"a": 1}}, "answers must be a text or a list of texts"),
        ({"answers": None}, "no field 'answers'"),
        ({"subject": "Bob"}, "'Bob' is not in the prompt"),
        ({"subject": ""}, "subject is empty"),
        ({"src": 3}, "src must be a text"),
        ({"src": None}, "neither 'prompt' nor 'src'"),
    ],
)
def test_parse_records_names_missing_fields(change, complaint):
    content = {k: v for k, v in {**ZSRE, **change}.items() if v is not None}
    with pytest.raises(MetakeError, match=complaint):
        parse_records(Path("f.json"), [content])


def test_read_records_refuses_other_files(write):
    for text, complaint in (
        ("{", "not JSON"),
        ("[]", "at least one"),
        ("{}", "a list"),
        ("[3]", "not an object"),
        ("", "not JSON"),
        (" \n\n", "not JSON"),
    ):
        with pytest.raises(MetakeError, match=complaint):
            read_records(write("x.json", text))


def test_shipped_records_are_those_of_the_world():
    """The files in the package are what the world writes, and nobody is in both parts."""
    dev, test = World().records()
    assert json.loads((ASSETS / "world" / "dev.json").read_text()) == dev
    assert json.loads((ASSETS / "world" / "test.json").read_text()) == test
    assert len(dev) + len(test) == len(World().facts) >= 2500
    assert not {r["subject"] for r in dev} & {r["subject"] for r in test}


def test_shipped_facts_are_readable_with_neighbors_apart():
    """The real facts are readable and keep neighbors apart."""
    records = read_records(ASSETS / "world" / "real_facts.json")
    assert len(records) >= 10
    for record in records:
        assert record.request.subject in record.rephrase
        assert record.request.subject not in record.locality
        assert record.request.target_new != record.ground_truth


OWN = {"prompt": "Ada was born in", "subject": "Ada", "target_new": "Oslo"}


def read(path, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return read_records(path, **options), [str(w.message) for w in caught]


def test_parse_records_reads_flat_facts():
    """Own facts are a prompt a subject and a target."""
    (record,) = parse_records(Path("f"), [OWN])
    assert record == Record(EditRequest("{} was born in", "Ada", "Oslo"))
    assert parse_records(Path("f"), [{"prompt": "{} was born in", "subject": "Ada", "target": "Oslo"}]) == [
        record
    ]


def test_parse_records_reads_optional_rephrase_and_unrelated_prompt():
    """Own facts may have a rephrase and an unrelated prompt."""
    full = {**OWN, "rephrase": "Ada's birthplace is", "locality": "Bo was born in", "locality_answer": "Bonn"}
    (record,) = parse_records(Path("f"), [full])
    assert (record.rephrase, record.rephrases) == ("Ada's birthplace is", ("Ada's birthplace is",))
    assert (record.locality, record.locality_answer, record.target_true) == ("Bo was born in", "Bonn", "")
    several = {**OWN, "rephrase": ["Ada's birthplace is", "Ada hails from"]}
    assert parse_records(Path("f"), [several])[0].rephrases == ("Ada's birthplace is", "Ada hails from")


def test_parse_records_takes_gap_in_prompts_about_the_subject():
    """Prompts about the subject may hold the gap too.

    Unless they name the subject: then braces are text, as in prompts about others.
    """
    same = [{"prompt": "{} studied", "answer": "x"}, {"prompt": "Ada wrote {} in", "answer": "y"}]
    full = {
        **OWN,
        "rephrase": ["The home of {} is", "Ada, {}, hails from"],
        "same_subject": same,
        "generation_prompts": ["{} is"],
        "locality": "{} is for",
        "locality_answer": "sets",
    }
    (record,) = parse_records(Path("f"), [full])
    assert record.rephrase == "The home of Ada is"
    assert record.rephrases == ("The home of Ada is", "Ada, {}, hails from")
    assert record.same_subject == (("Ada studied", "x"), ("Ada wrote {} in", "y"))
    assert (record.generation_prompts, record.locality) == (("Ada is",), "{} is for")
    (several,) = parse_records(Path("f"), [{**MULTI, "paraphrase_prompts": ["The home of {} is"]}])
    assert several.rephrase == "The home of Ada is"


def test_parse_records_drops_a_rival_equal_to_the_target():
    """Else its success would be 0 whatever the model says: nothing is likelier than itself."""
    (record,) = parse_records(Path("f"), [{**OWN, "ground_truth": " Oslo"}])
    assert (record.ground_truth, record.target_true) == ("Oslo", "")
    assert parse_records(Path("f"), [{**OWN, "ground_truth": "Bonn"}])[0].target_true == "Bonn"


def test_read_records_skips_rows_of_empty_cells(write):
    path = write("r.csv", "prompt,subject,target\n,,\n{} is,Ada,x\n , ,\n\n")
    assert read_records(path) == [Record(EditRequest("{} is", "Ada", "x"))]


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00", b"PK\x03\x04\x9f"], ids=["gzip", "zip"])
def test_read_records_refuses_a_packed_file(content, tmp_path):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(MetakeError, match="unpack it"):
        read_records(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target_new": None, "target": None}, "target_new is null"),
        ({"target_new": ..., "target": None}, "target is null"),
        ({"target_new": ..., "target": ""}, "target is empty"),
        ({"ground_truth": [True]}, "ground_truth must be a text or a list of texts"),
        ({"ground_truth": [[{"a": 1}]]}, "ground_truth must be a text or a list of texts"),
        ({"rephrase": 3}, "rephrase must be a text or a list of texts"),
    ],
)
def test_parse_records_names_a_present_field_as_spelled(change, complaint):
    entry = {name: value for name, value in {**OWN, **change}.items() if value is not ...}
    with pytest.raises(MetakeError, match=f"record 1: {complaint}"):
        parse_records(Path("f"), [entry])


@pytest.mark.parametrize("entry", [OWN, ZSRE, FLAT, MULTI], ids=["own", "zsre", "flat", "multi"])
def test_read_records_gives_equal_records_of_every_container(entry, tmp_path):
    """A JSON list, JSON Lines (under its own name, under .json, or of one line), CSV and TSV."""
    second = json.loads(json.dumps(entry).replace("Ada", "Zoë"))
    wanted = parse_records(Path("f"), [entry, second])
    (tmp_path / "list.json").write_text(json.dumps([entry, second]), encoding="utf-8")
    lines = json.dumps(entry) + "\n\n" + json.dumps(second) + "\n"
    for name in ("lines.jsonl", "lines.ndjson", "lines.json", "lines.txt"):
        (tmp_path / name).write_text(lines, encoding="utf-8")
    for name, delimiter in (("t.csv", ","), ("semicolon.csv", ";"), ("t.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8-sig", newline="") as file:
            table = csv.writer(file, delimiter=delimiter)
            table.writerow(entry)
            for row in (entry, second):
                table.writerow([v if isinstance(v, str) else json.dumps(v) for v in row.values()])
    files = sorted(tmp_path.iterdir())
    assert len(files) == 8
    for path in files:
        assert read_records(path) == wanted, path
        assert read_records(path, 1) == wanted[:1]
    (tmp_path / "one.json").write_text(json.dumps(entry, indent=1))
    assert read_records(tmp_path / "one.json") == wanted[:1]


def test_read_records_reads_line_breaks_quotes_and_empty_cells(write):
    """A table may hold line breaks quotes and empty cells."""
    path = write(
        "t.csv", 'prompt,subject,target_new,rephrase\r\n"Ada, who ""codes"",\nlives in",Ada,Oslo,\r\n\r\n'
    )
    (record,) = read_records(path)
    assert record.request.text == 'Ada, who "codes",\nlives in'
    assert record.rephrase == ""


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("x.csv", "", "holds no record"),
        ("x.csv", "prompt,subject,target\n", "holds no record"),
        ("x.csv", 'prompt,subject,target\n"a,b,c\n', "not CSV or TSV"),
        ("x.csv", "prompt,subject,target\nAda is,Ada,b,c\n", "record 1 has 4 cells, the header 3"),
        ("x.csv", "prompt,,target\nAda is,Ada,b\n", "must name every column once"),
        ("x.csv", "prompt,prompt,target\nAda is,Ada,b\n", "must name every column once"),
        ("x.tsv", "prompt\tsubject\ttarget\nAda is\tAda\n", "record 1 has 2 cells"),
        (
            "x.csv",
            "prompt,subject,target,ground_truth\nAda is,Ada,b,['x']\n",
            "ground_truth looks like a list",
        ),
        (
            "x.jsonl",
            '{"prompt": "Ada is", "subject": "Ada", "target": "b"}\n{"prompt"\n',
            "line 2 is not JSON",
        ),
        (
            "x.json",
            '{"prompt": "Ada is", "subject": "Ada", "target": "b"}\n{"prompt"\n',
            "line 2 is not JSON",
        ),
        ("x.jsonl", "\n", "holds no record"),
        ("x.json", "prompt,subject\n", "by its name, .csv or .tsv"),
        ("x.json", "3", "a list with at least one record"),
    ],
)
def test_read_records_names_damaged_containers(write, name, text, complaint):
    path = write(name, text)
    with pytest.raises(MetakeError, match=complaint) as raised:
        read_records(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


NESTED = {
    **OWN,
    "rephrase_prompt": "Ada's home is",
    "ground_truth": [["Rome", "Roma"]],
    "locality": {
        "Relation_Specificity": [{"prompt": "Ada's mother is", "ground_truth": [["Bea"], ["Beatrice"]]}],
        "Forgetfulness": [{"prompt": "Bo lives in", "ground_truth": ["Bonn"]}],
    },
    "portability": {"Reasoning": [{"prompt": "Ada's country is", "ground_truth": ["Norway"]}]},
}


def test_read_records_reads_nested_fields_and_aliases_of_easyedit(write):
    (record,), notes = read(write("n.json", json.dumps([NESTED])))
    assert (record.locality, record.locality_answer) == ("Bo lives in", "Bonn")  # about something else
    assert record.same_subject == (("Ada's mother is", "Bea"),)
    assert (record.ground_truth, record.target_true) == ("Rome", "Rome")
    assert record.probes == (
        ("Reasoning", "Ada's country is", ("Norway",), "change"),
        ("Relation_Specificity", "Ada's mother is", ("Bea", "Beatrice"), "keep"),
        ("Forgetfulness", "Bo lives in", ("Bonn",), "keep"),
    )
    assert notes == []


@pytest.mark.parametrize("aliases", ["English", ["English"], ["English", "englisch"], [["English"], ["x"]]])
def test_parse_records_takes_the_first_of_aliases(aliases):
    assert parse_records(Path("f"), [{**OWN, "ground_truth": aliases}])[0].target_true == "English"
    assert (
        parse_records(Path("f"), [{**ZSRE, "pred": aliases, "loc_ans": aliases}])[0].ground_truth == "English"
    )
    assert parse_records(Path("f"), [{**ZSRE, "answers": aliases}])[0].request.target_new == "English"


WRONG = (
    None,
    3,
    2.5,
    True,
    [],
    [3],
    [None],
    [[]],
    {},
    {"a": 1},
    "",
    " ",
    [{"prompt": 1}],
    {"a": [{"prompt": "x"}]},
    float("nan"),
)


@pytest.mark.parametrize(
    "entry", [OWN, ZSRE, FLAT, MULTI, NESTED], ids=["own", "zsre", "flat", "multi", "nested"]
)
def test_parse_records_checks_the_type_of_every_field(entry):
    """Every field takes its type or ends in one line.

    Every field of every format, and every field of the objects in it, with values of every kind.
    """
    whole = {**entry, "same_subject": [{"prompt": "Ada is", "answer": "b"}], "generation_prompts": ["Ada"]}

    def spoiled(value, wrong):
        yield wrong
        parts = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, part in parts:
            for new in spoiled(part, wrong):
                copy = value.copy()
                copy[key] = new
                yield copy

    refused = []
    for wrong in WRONG:
        for content in spoiled(whole, wrong):
            try:
                records = parse_records(Path("f.json"), [content])
            except MetakeError as error:
                refused.append(str(error))
                continue
            for text in texts_of(asdict(records[0])):
                assert isinstance(text, str | int | None)
                assert not isinstance(text, str) or "[" not in text
    assert len(refused) > 5 * len(WRONG)
    assert all(line.startswith("f.json: record 1") and "\n" not in line for line in refused)


def texts_of(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts_of(part)]
    return [value]


def test_parse_records_reports_all_problems_in_one_line():
    """All problems of a file are in one line the first five named."""
    entries = [{"prompt": "Ada is"}, OWN, {"prompt": 3, "subject": None, "target": "x"}, 4, {"src": "x"}]
    with pytest.raises(MetakeError) as raised:
        parse_records(Path("f.csv"), entries)
    assert str(raised.value) == (
        "f.csv: record 1 has no field 'subject'; record 1 has no field 'target_new'; record 3: prompt must be a text, "
        "not a number; record 3: subject is null; record 4 is not an object with fields; and 2 more; "
        "correct them as docs/data.md shows"
    )


def test_read_records_notes_unused_fields_once(write):
    """Fields that are not used are named once."""
    entries = [
        {**OWN, "rephrse": "x", "case_id": 1},
        {**OWN, "subject": "Ada", "rephrse": "y", "source": {"a": 1}},
    ]
    path = write("f.json", json.dumps(entries))
    assert read(path)[1] == [f"{path}: not used: rephrse (did you mean 'rephrase'?), source"]
    assert read(write("g.json", json.dumps([ZSRE, FLAT, MULTI, OWN])))[1] == []


def test_parse_records_names_half_a_surrogate_pair():
    """Half of a surrogate pair is named in every field."""
    for entry in (ZSRE, FLAT, MULTI, NESTED):
        for field in entry:
            spoiled = json.loads(
                json.dumps({**entry, field: entry[field]}).replace(f'"{field}": "', f'"{field}": "\\ud83d', 1)
            )
            if spoiled != entry:
                with pytest.raises(MetakeError, match="record 1 contains a lone surrogate"):
                    parse_records(Path("f"), [spoiled])


def test_parse_records_checks_required_fields_of_every_record():
    """What a caller needs is asked of every record."""
    with pytest.raises(MetakeError, match="record 2 has no rephrase, which is needed here"):
        parse_records(Path("f"), [ZSRE, OWN], need=("rephrase",))


def test_parse_records_reads_flat_easyedit_files():
    """A file of EasyEdit gives what it gave.

    The fields of its flat format, one by one.
    """
    (record,) = parse_records(Path("f"), [FLAT])
    assert record == Record(
        EditRequest("{} was born in", "Ada", "Oslo"),
        "Ada's birthplace is",
        "Bo was born in",
        "Bonn",
        "Rome",
        target_true="Rome",
        rephrases=("Ada's birthplace is",),
    )


TABLE = "prompt,subject,target,ground_truth\n"


@pytest.mark.parametrize("cell", ["1999", "true", "null", "3.50", "[sic] Oslo", "{Oslo}", "x [1]"])
def test_read_records_takes_a_cell_as_text_unless_json(write, cell):
    """A cell that is no list or object is the text that stands there.

    A year stays a text; brackets do not make a list.
    """
    (record,) = read_records(write("t.csv", f"{TABLE}Ada is,Ada,{cell},{cell}\n"))
    assert (record.request.target_new, record.ground_truth) == (cell, cell)


def test_read_records_takes_a_cell_of_two_braces_as_gap(write):
    (record,) = read_records(write("t.csv", "prompt,subject,target\n{},Ada,b\n"))
    assert record.request.text == "Ada"


def test_read_records_takes_a_cell_of_spaces_as_empty(write):
    (record,) = read_records(write("t.csv", "prompt,subject,target,target_new\nAda is,Ada,b, \n"))
    assert record.request.target_new == "b"


def test_read_records_splits_a_table_at_its_headers_delimiter(write):
    """A table is cut where its header is.

    The delimiter that stands most often in the header; the other one may stand in a name and in any cell.
    """
    text = 'prompt;subject;target;"of, whom"\nAda, or so, is;Ada;b;c\n'
    (record,), notes = read(write("T.CSV", text))  # whatever the case of the suffix
    assert record.request.text == "Ada, or so, is"
    assert notes[0].endswith("not used: of, whom")


@pytest.mark.parametrize("mark", ["\u2028", "\x85"])
def test_read_records_ends_json_lines_at_line_feeds_alone(write, mark):
    """Other characters that Python calls line ends stand in texts as they are."""
    entry = json.dumps({**OWN, "target_new": f"Os{mark}lo"}, ensure_ascii=False)
    (record,) = read_records(write("t.jsonl", entry + "\r\n"))
    assert record.request.target_new == f"Os{mark}lo"


def test_parse_records_takes_the_first_name_with_a_value():
    """Of two names of a field the first with a value counts."""
    both = {**OWN, "target": "Rome", "rephrase": "Ada hails from", "rephrase_prompt": "x"}
    (record,) = parse_records(Path("f"), [both])
    assert (record.request.target_new, record.rephrase) == ("Oslo", "Ada hails from")
    (record,) = parse_records(Path("f"), [{**both, "target_new": None, "rephrase": None}])
    assert (record.request.target_new, record.rephrase) == ("Rome", "x")


@pytest.mark.parametrize(
    ("loc", "asked"), [("who", "who?"), ("who?", "who?"), ("who:", "who:"), ("So.", "So.")]
)
def test_parse_records_adds_a_question_mark_to_unrelated_questions(loc, asked):
    """An unrelated question gets the mark that it lacks."""
    assert parse_records(Path("f"), [{**ZSRE, "loc": loc}])[0].locality == asked


def test_parse_records_takes_nested_subject_prompt_as_unrelated():
    """Nested prompts that are all about the subject.

    The first stands for the unrelated one; it is not asked twice.
    """
    pairs = [{"prompt": f"Ada's {who} is", "ground_truth": who} for who in ("mother", "father")]
    (record,) = parse_records(Path("f"), [{**OWN, "locality": pairs}])
    assert (record.locality, record.locality_answer) == ("Ada's mother is", "mother")
    assert record.same_subject == (("Ada's father is", "father"),)


def test_parse_records_of_counterfact_without_neighbors():
    """The original format without neighbors has no unrelated prompt."""
    (record,) = parse_records(Path("f"), [{k: v for k, v in MULTI.items() if k != "neighborhood_prompts"}])
    assert (record.locality, record.locality_answer, record.neighbors, record.target_true) == (
        "",
        "",
        (),
        "Rome",
    )


def test_parse_records_strips_texts_of_lists():
    """Texts of a list are stripped and empty ones dropped."""
    (record,) = parse_records(Path("f"), [{**MULTI, "paraphrase_prompts": [" ", " Ada hails from "]}])
    assert record.rephrases == ("Ada hails from",)


def test_read_records_limits_records_to_at_least_one(write):
    """A limit takes the first records and is at least one."""
    path = write("t.json", json.dumps([{**OWN, "target_new": name} for name in "abc"]))
    assert [r.request.target_new for r in read_records(path, 2)] == ["a", "b"]
    assert [r.request.target_new for r in read_records(path, 1000)] == ["a", "b", "c"]
    with pytest.raises(MetakeError, match=r"^records: at least 1 is needed, got 0$"):
        read_records(path, 0)


def test_parse_records_takes_the_most_specific_format():
    """An entry of several formats is read as the most specific.

    CounterFact's before zsRE's before the flat one.
    """
    rewrite = MULTI["requested_rewrite"]
    for entry, text in (
        ({**MULTI, **ZSRE, **FLAT}, rewrite["prompt"].format("Ada")),
        ({**FLAT, **ZSRE}, ZSRE["src"]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert parse_records(Path("f"), [entry])[0].request.text == text


@pytest.mark.parametrize("cell", ["['x']", "[\"x'", "[{x", "{'a': 1}", '{"a"'])
def test_read_records_refuses_cells_meant_as_list_or_object(write, cell):
    """Python's own spelling of lists is not JSON."""
    quoted = '"' + cell.replace('"', '""') + '"'
    path = write("t.csv", f"{TABLE}Ada is,Ada,b,{quoted}\n")
    with pytest.raises(
        MetakeError, match="record 1: ground_truth looks like a list or an object but is not JSON"
    ):
        read_records(path)


def test_parse_records_reads_zsre_with_subject_prompts():
    """ZsRE may have other prompts about the subject."""
    (record,) = parse_records(Path("f"), [{**ZSRE, "same_subject": [{"prompt": "Ada is", "answer": "b"}]}])
    assert record.same_subject == (("Ada is", "b"),)


def test_parse_records_names_the_expected_shape_of_prompts():
    """Prompts with answers of another shape are named with the right one."""
    with pytest.raises(MetakeError) as raised:
        parse_records(Path("f"), [{**OWN, "same_subject": [3]}])
    assert str(raised.value) == (
        'f: record 1: same_subject must be a list of objects with the texts "prompt" and "ground_truth"; '
        "correct them as docs/data.md shows"
    )


@pytest.mark.parametrize(
    ("entry", "rest"),
    [
        (
            {"prompt": "Ada is", "subject": "Ada", "taget_new": "b"},
            "record 1 has no field 'target_new'; 'taget_new': did you mean 'target_new'?",
        ),
        (
            {"prompt": "Ada is", "subjct": "Ada", "target": "b"},
            "record 1 has no field 'subject'; 'subjct': did you mean 'subject'?",
        ),
        (
            {"src": "Who is Ada?", "subject": "Ada", "answer": ["b"]},
            "record 1 has no field 'answers'; 'answer': did you mean 'answers'?",
        ),
        (
            {
                "requested_rewrite": {
                    "prompt": "{} is",
                    "subject": "Ada",
                    "target_nw": {"str": "b"},
                    "target_true": {"str": "c"},
                }
            },
            "record 1 has no field 'target_new'; 'target_nw': did you mean 'target_new'?",
        ),
        (
            {"promt": "Ada is", "subject": "Ada", "target": "b"},
            "record 1 has neither 'prompt' nor 'src' (zsRE) or 'requested_rewrite' (CounterFact); "
            "'promt': did you mean 'prompt'?",
        ),
    ],
)
def test_parse_records_suggests_the_field_meant_by_a_misspelling(entry, rest):
    with pytest.raises(MetakeError) as raised:
        parse_records(Path("f"), [entry])
    assert str(raised.value).startswith(f"f: {rest}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", '[{"prompt": "Ada is", "subject": "Ada", "target": "b"}, 3]'),
        ("x.jsonl", '{"prompt": "Ada is", "subject": "Ada", "target": "b"}\n3\n'),
        ("x.csv", "prompt,subject,target\nAda is,Ada,b\nAda is,Ada\n"),
        ("x.csv", "prompt,subject,target\nAda is,Ada,b\nAda is,Ada,\"['b'\"\n"),
        ("x.csv", "prompt,subject,target\nAda is,Ada,b\nAda is,,b\n"),
        ("x.json", '[{"prompt": "Ada is", "subject": "Ada", "target": "b"}, {"prompt": "a", "prompt": "b"}]'),
    ],
)
def test_read_records_counts_records_from_one(write, name, text):
    """Records are counted from one in every format.

    As docs/data.md says; the second record is wrong. A damaged container is an error, an unusable entry a note.
    """
    path = write(name, text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            assert len(read_records(path)) == 1
            (line,) = [str(w.message) for w in caught]
            assert line.startswith(f"{path}: 2 records, 1 left out: ")
        except MetakeError as error:
            line = str(error)
    assert re.search(r": record 2\b", line)
    assert "record 1" not in line


NO_FORMAT = "f: record 1 has neither 'prompt' nor 'src' (zsRE) or 'requested_rewrite' (CounterFact)"


@pytest.mark.parametrize(
    ("entry", "rest"),
    [
        ({"subject": "x"}, "; record 1 has no field 'target_new'"),
        ({"subject": "x", "target": " "}, "; record 1: target is empty"),
        ({"text": "Ada"}, "; record 1 has no field 'subject'; record 1 has no field 'target_new'"),
        ({"subject": "x", "target": "y"}, ""),
        ({"subject": "x", "answers": ["y"]}, ""),
    ],
)
def test_parse_records_lists_formats_for_an_unknown_entry(entry, rest):
    """An entry of no format is told the three and what else it lacks."""
    with pytest.raises(MetakeError) as raised:
        parse_records(Path("f"), [entry])
    assert str(raised.value) == f"{NO_FORMAT}{rest}; correct them as docs/data.md shows"


GOOD = '{"prompt": "Ada is", "subject": "Ada", "target": "b"}'


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("x.json", f'[{GOOD}, {GOOD[:-1]}, "target": "c"}}]', "target"),
        ("x.jsonl", f'{GOOD}\n{GOOD[:-1]}, "target": "b"}}\n', "target"),
        ("x.json", f'[{GOOD}, {GOOD[:-1]}, "same_subject": [{{"prompt": "a", "prompt": "b"}}]}}]', "prompt"),
        (
            "x.csv",
            "prompt,subject,target,same_subject\nAda is,Ada,b,\n"
            'Ada is,Ada,b,"[{""prompt"": ""a"", ""prompt"": ""b""}]"\n',
            "prompt",
        ),
    ],
)
def test_read_records_names_duplicate_keys(write, name, text, key):
    """A key that stands twice in a record is named.

    JSON would keep the last of its values without a word.
    """
    path = write(name, text)
    with pytest.raises(MetakeError) as raised:
        read_records(path)
    assert str(raised.value) == f"{path}: record 2 has the key '{key}' more than once; keep one of them"


def test_read_records_reads_table_headers_in_any_case(write):
    """The header of a table may be written in any case."""
    (record,) = read_records(write("x.csv", "Prompt,SUBJECT,Target_New\nAda is,Ada,b\n"))
    assert (record.request.text, record.request.target_new) == ("Ada is", "b")
    with pytest.raises(
        MetakeError, match="name every column once, not 'prompt', 'subject', 'target', 'target'"
    ):
        read_records(write("y.csv", "prompt,subject,target,Target\nAda is,Ada,b,c\n"))
