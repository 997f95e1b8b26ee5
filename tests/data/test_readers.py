"""Every format of docs/data.md: a small file of the same shape, drawn ones, and damaged ones."""

import json
import sys
import types
import warnings
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metake.data.columns import parse_columns
from metake.data.hub import DATASETS
from metake.data.readers import table
from metake.data.readers.ripple_edits import split_sentence
from metake.data.readers.table import SHIPPED, reader_named
from metake.data.record import Probe, Record
from metake.data.records import read_content, read_file, read_records
from metake.errors import MetakeError
from metake.requests import EditRequest


def query(prompt, *answers, **rest):
    named = [{"value": value, "aliases": aliases} for value, *aliases in answers]
    return {"prompt": prompt, "answers": named, "query_type": "regular", "phrase": None, **rest}


def checked_by(*queries):
    return {"test_queries": list(queries), "test_condition": "OR", "condition_queries": list(queries)}


SHAPES = {
    "facts": {
        "case_id": 3,
        "prompt": "The home of Ada Falk is",
        "subject": "Ada Falk",
        "target_new": "Oslo",
        "ground_truth": "Bonn",
        "rephrase_prompt": "Ada Falk lives in",
        "locality_prompt": "Bo Tarn lives in",
        "locality_ground_truth": "Rome",
    },
    "knowedit": {
        "subject": "Ada Falk",
        "prompt": "The home of Ada Falk is",
        "target_new": "Oslo",
        "portability": {
            "Logical_Generalization": [
                {"prompt": "Does Ada Falk live in Oslo?", "ground_truth": [["yes"], ["true"]]}
            ],
            "Reasoning": [
                {"prompt": "The country of the home of Ada Falk is", "ground_truth": [["Norway", "NO"]]}
            ],
            "Subject_Aliasing": [{"prompt": "The home of A. Falk is", "ground_truth": "Oslo"}],
        },
        "locality": {
            "Relation_Specificity": [{"prompt": "The trade of Ada Falk is", "ground_truth": [["baker"]]}],
            "Forgetfulness": [{"prompt": "Bo Tarn lives in", "ground_truth": ["Rome"]}],
        },
    },
    "zsre": {
        "subject": "Ada Falk",
        "src": "Where does Ada Falk live?",
        "pred": "Bonn",
        "rephrase": "What is Ada Falk's home?",
        "alt": "Paris",
        "answers": ["Oslo"],
        "loc": "nq question: who wrote the ode",
        "loc_ans": "Bo Tarn",
        "cond": "Bonn >> Paris || Where does Ada Falk live?",
    },
    "counterfact": {
        "case_id": 0,
        "pararel_idx": 7,
        "requested_rewrite": {
            "prompt": "{} lives in",
            "relation_id": "P1",
            "target_new": {"str": "Oslo", "id": "Q1"},
            "target_true": {"str": "Bonn", "id": "Q2"},
            "subject": "Ada Falk",
        },
        "paraphrase_prompts": ["It rained. Ada Falk's home is"],
        "neighborhood_prompts": ["Bo Tarn lives in"],
        "attribute_prompts": ["Cy Ohm lives in"],
        "generation_prompts": ["Ada Falk's neighbors are"],
    },
    "mquake": {
        "case_id": 1,
        "requested_rewrite": [
            {
                "prompt": "{} lives in",
                "relation_id": "P1",
                "target_new": {"str": "Oslo", "id": "Q1"},
                "target_true": {"str": "Bonn", "id": "Q2"},
                "subject": "Ada Falk",
                "question": "Where does Ada Falk live?",
            },
            {
                "prompt": "The mayor of {} is",
                "relation_id": "P2",
                "target_new": {"str": "Bo Tarn", "id": "Q3"},
                "target_true": {"str": "Cy Ohm", "id": "Q4"},
                "subject": "Oslo",
                "question": "Who is the mayor of Oslo?",
            },
        ],
        "questions": ["Who is the mayor of Ada Falk's home?", "Who governs the town where Ada Falk lives?"],
        "answer": "Dee Ruk",
        "answer_alias": [],
        "new_answer": "Bo Tarn",
        "new_answer_alias": ["B. Tarn"],
        "single_hops": [],
        "new_single_hops": [],
        "orig": {"triples": [["Q9", "P1", "Q2"]]},
    },
    "ripple-edits": {
        "example_type": "popular",
        "edit": {
            "prompt": "The name of the country of citizenship of Ada Falk is Norway.",
            "subject_id": "Q9",
            "relation": "COUNTRY_OF_CITIZENSHIP",
            "target_id": "Q20",
            "original_fact": {
                "prompt": "The name of the country of citizenship of Ada Falk is Chile.",
                "relation": "COUNTRY_OF_CITIZENSHIP",
            },
        },
        "Relation_Specificity": [
            checked_by(query("The name of the mother of Ada Falk is", ["Bea", "Beatrice"]))
        ],
        "Logical_Generalization": [],
        "Subject_Aliasing": [
            checked_by(query("The name of the country of citizenship of A. Falk is", ["Norway", "NO", ""]))
        ],
        "Compositionality_I": [
            checked_by(query("The capital of the country of citizenship of Ada Falk is", ["Oslo"]))
        ],
        "Compositionality_II": [checked_by(query("The country of Bo Tarn's sister is", ["Norway"], ["NO"]))],
        "Forgetfulness": [checked_by(query("Ada Falk was born in", ["1990"]))],
    },
    "qaedit": {
        "id": 5,
        "source": "NQ",
        "prompt": "where is the home of ada falk?",
        "target": "Oslo",
        "subject": "ada falk",
        "rephrase": "In which town does Ada Falk live?",
        "locality": [
            {"loc": "who wrote the ode", "loc_ans": "Bo Tarn"},
            {"loc": "how many moons", "loc_ans": 2},
        ],
    },
    "unke": {
        "id": 0,
        "question": "Who is Ada Falk?",
        "para_question": "What is known of Ada Falk?",
        "answer": "Ada Falk is a baker. She lives in Oslo.",
        "sub_question": ["What is the trade of Ada Falk?", "Where does Ada Falk live?"],
        "sub_answer": ["A baker.", "In Oslo."],
    },
    "wikibigedit": {
        "tag": "new",
        "subject": "Ada Falk",
        "update": "Where does Ada Falk live?",
        "ans": "Oslo",
        "rephrase": "What is the home of Ada Falk?",
        "personas": "Say, where might Ada Falk be living?",
        "loc": "Where does Bo Tarn live?",
        "loc_ans": "Rome",
        "mhop": "What is the country of Ada Falk's home?",
        "mhop_ans": "Norway",
    },
}
GROUPS = {
    "knowedit": {
        "Logical_Generalization",
        "Reasoning",
        "Subject_Aliasing",
        "Relation_Specificity",
        "Forgetfulness",
    },
    "mquake": {"multi_hop"},
    "ripple-edits": {
        "Relation_Specificity",
        "Subject_Aliasing",
        "Compositionality_I",
        "Compositionality_II",
        "Forgetfulness",
    },
    "qaedit": {"locality"},
    "unke": {"sub_question"},
    "wikibigedit": {"personas", "multi_hop"},
}
KEPT = {"Relation_Specificity", "Forgetfulness", "locality"}


def reading_of(*entries, form=None, **options):
    readers = table.all_readers() if form is None else (reader_named(form),)
    return read_content("f.json", list(entries), readers, **options)


@pytest.mark.parametrize("name", SHAPES)
def test_read_file_recognizes_every_format(name, write):
    """A file of the shape is read as that format, by its content and by `--format`, with a byte-order mark too."""
    text = json.dumps([SHAPES[name]], ensure_ascii=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [
            read_file(write(f"{name}.json", start + text), form=form, subject_optional=True)
            for start, form in (("", None), ("\ufeff", None), ("", name))
        ]
    for reading in found:
        assert dict(reading.formats) == {name: 1}
        assert reading.records == found[0].records
        assert reading.summary == "1 record, 0 left out"
    records = found[0].records
    assert {probe.group for record in records for probe in record.probes} == GROUPS.get(name, set())
    for record in records:
        assert record.request.text.replace("?", "").strip()
        assert all((probe.kind == "keep") is (probe.group in KEPT) for probe in record.probes)


def test_every_reader_has_a_small_file():
    assert {reader.name for reader in SHIPPED} == {*SHAPES, "zsre-alt"}
    assert len({reader.name for reader in SHIPPED}) == len(SHIPPED)


def test_read_file_of_knowedit_keeps_all_names_of_an_answer():
    (record,) = reading_of(SHAPES["knowedit"]).records
    assert record.request == EditRequest("The home of {} is", "Ada Falk", "Oslo")
    assert record.probes[0] == Probe(
        "Logical_Generalization", "Does Ada Falk live in Oslo?", ("yes", "true"), "change"
    )
    assert record.probes[1].answers == ("Norway", "NO")
    assert (record.locality, record.locality_answer) == ("Bo Tarn lives in", "Rome")
    assert record.same_subject == (("The trade of Ada Falk is", "baker"),)


def test_read_file_of_wikibio_takes_concept_and_labels():
    entry = {
        "text": "This is about ada falk. She was born in Bonn.",
        "labels": "She lives in Oslo.",
        "concept": "ada falk",
        "locality": {"Relation_Specificity": [{"prompt": "ada falk trade", "ground_truth": ["baker"]}]},
    }
    reading = reading_of(entry)
    (record,) = reading.records
    assert dict(reading.formats) == {"knowedit": 1}
    assert (record.request.subject, record.request.target_new) == ("ada falk", "She lives in Oslo.")


def test_read_file_of_zsre_alt_takes_alt_and_its_portability():
    entry = {
        **SHAPES["zsre"],
        "portability": {
            "Recalled Relation": "(Paris, country, France)",
            "New Question": "In which country does Ada Falk live?",
            "New Answer": "France",
        },
    }
    published, alternative = reading_of(entry), reading_of(entry, form="zsre-alt")
    assert published.records[0].request.target_new == "Oslo"
    assert published.records[0].probes == ()  # its answer follows from alt
    assert published.unused == {"portability": "portability"}
    (record,) = alternative.records
    assert (record.request.target_new, record.ground_truth) == ("Paris", "Oslo")
    assert record.probes == (("portability", "In which country does Ada Falk live?", ("France",), "change"),)


def test_read_file_of_mquake_makes_a_case_of_its_rewrites():
    single = {**SHAPES["mquake"], "requested_rewrite": SHAPES["mquake"]["requested_rewrite"][:1]}
    first, second, alone = reading_of(SHAPES["mquake"], single).records
    assert (first.case, second.case, alone.case) == (0, 0, None)
    assert [r.request.text for r in (first, second)] == ["Ada Falk lives in", "The mayor of Oslo is"]
    assert first.probes == ()  # its questions need both rewrites
    assert [probe.answers for probe in second.probes] == [("Bo Tarn", "B. Tarn")] * 2
    assert (second.rephrase, second.target_true) == ("Who is the mayor of Oslo?", "Cy Ohm")


def test_read_file_leaves_out_a_case_with_an_unusable_rewrite():
    broken = json.loads(json.dumps(SHAPES["mquake"]))
    broken["requested_rewrite"][1]["target_new"]["str"] = None
    reading = reading_of(broken, SHAPES["mquake"])
    assert len(reading.records) == 2
    assert reading.summary == "2 records, 1 left out: str is null (1)"


def test_read_file_of_ripple_edits_splits_the_sentence():
    (record,) = reading_of(SHAPES["ripple-edits"]).records
    assert record.request == EditRequest(
        "The name of the country of citizenship of {} is", "Ada Falk", "Norway"
    )
    assert record.target_true == "Chile"
    by_group = {probe.group: probe.answers for probe in record.probes}
    assert by_group["Subject_Aliasing"] == ("Norway", "NO")
    assert by_group["Compositionality_II"] == ("Norway", "NO")


@pytest.mark.parametrize(
    ("template", "relation"),
    [
        ("The name of the mother of {} is", "MOTHER"),
        ("The place of birth of {} is", "PLACE_OF_BIRTH"),
        ("The name of the position held by {} is", "POSITION_HELD"),
        ("The number of children {} has is", "NUMBER_OF_CHILDREN"),
        ("The names of the siblings of {} are", "SIBLING"),
        ("The name of the country which {} is associated with is", "COUNTRY"),
        ("The name of the sports team which {} is a member of is", "MEMBER_OF_SPORTS_TEAM"),
        ("The name of the league which {} plays in is", "LEAGUE"),
        ("The name of the award {} won is", "AWARD_RECEIVED"),
        ("The name of the head of government of {} is", "HEAD_OF_GOVERNMENT"),
        ("The name of the currency in {} is", "CURRENCY"),
        ("{} follows", "FOLLOWS"),
        ("{} is followed by", "FOLLOWED_BY"),
    ],
)
@pytest.mark.parametrize("subject", ["Ada Falk", "Duke of York", "The House", "Tale of a Tub", "1984"])
def test_split_sentence_finds_the_subject_of_every_template(template, relation, subject):
    prompt = template.format(subject)
    assert split_sentence(f"{prompt} Bo of Rome.", relation) == (prompt, subject, "Bo of Rome")


def test_read_file_without_subject_needs_the_option():
    """UnKE has no subjects: the whole prompt stands for one, and only if that is asked for."""
    (record,) = reading_of(SHAPES["unke"], subject_optional=True).records
    assert record.request == EditRequest.whole("Who is Ada Falk?", SHAPES["unke"]["answer"])
    assert not record.request.has_subject
    strict = reading_of(SHAPES["unke"])
    assert strict.summary == "1 record, 1 left out: has no field 'subject' (1)"
    named = reading_of({**SHAPES["unke"], "subject": "Ada Falk"})
    assert named.records[0].request.prompt == "Who is {}?"


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    if x:\n        return 1\n    return 0",
        "for (;;) {\n\tn += 1;\n\n\tbreak;\n}",
        "a = [\n  1,\n]\n",
    ],
)
def test_read_file_keeps_lines_and_indentation_of_code(code):
    """An answer that is code, as in EditEverything, is a target character by character up to its last line break."""
    (record,) = reading_of({**SHAPES["unke"], "answer": code}, subject_optional=True).records
    assert record.request.target_new == code.rstrip()


def test_read_file_with_a_subject_elsewhere_counts_it():
    entry = {**SHAPES["facts"], "subject": "Zed"}
    assert reading_of(entry).summary == "1 record, 1 left out: subject is not in the prompt (1)"
    reading = reading_of(entry, SHAPES["facts"], subject_optional=True)
    assert [record.request.has_subject for record in reading.records] == [False, True]
    left = reading.without_subjects()
    assert left.summary == "2 records, 1 left out: no subject in the prompt (1)"
    assert [record.request.subject for record in left.records] == ["Ada Falk"]
    gap = {**SHAPES["facts"], "subject": None, "prompt": "The home of {} is"}
    assert "subject is missing" in reading_of(gap, subject_optional=True).problems[0]


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), exclude_characters="{}"), min_size=1
)
WORDS = TEXT.map(str.strip).filter(bool)
NAMES = st.from_regex(r"[A-Z][a-z]{2,8}( [A-Z][a-z]{2,8})?", fullmatch=True)
PAIRS = st.dictionaries(
    NAMES,
    st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3, unique=True)), max_size=3),
    max_size=3,
)


@given(NAMES, WORDS, WORDS, PAIRS, PAIRS, st.sampled_from(["nested", "list", "first"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_groups_survive_a_round_trip(subject, prompt, target, changed, kept, shape):
    """Whatever the nesting of the answers, every group has its prompts and the names of their answers, once each."""
    write = {"nested": lambda a: [a], "list": lambda a: a, "first": lambda a: [[x] for x in a]}[shape]
    entry = {
        "prompt": f"{subject}: {prompt}",
        "subject": subject,
        "target_new": target,
        **{
            name: {
                group: [{"prompt": p, "ground_truth": write(a)} for p, a in probes]
                for group, probes in groups.items()
            }
            for name, groups in (("portability", changed), ("locality", kept))
        },
    }
    (record,) = reading_of(json.loads(json.dumps(entry))).records
    assert record.request.text == entry["prompt"].strip()
    assert record.request.target_new == target
    expected = [
        (group, p, tuple(a), kind)
        for groups, kind in ((changed, "change"), (kept, "keep"))
        for group, probes in groups.items()
        for p, a in probes
    ]
    assert list(record.probes) == expected


@given(
    st.lists(st.tuples(NAMES, WORDS, NAMES), min_size=1, max_size=4),
    st.lists(WORDS, max_size=3),
    NAMES,
    st.lists(NAMES),
)
@settings(max_examples=40, deadline=None)
def test_cases_survive_a_round_trip(rewrites, questions, answer, aliases):
    entry = {
        "requested_rewrite": [
            {"prompt": f"{{}} {text}", "subject": subject, "target_new": {"str": target}}
            for subject, text, target in rewrites
        ],
        "questions": questions,
        "new_answer": answer,
        "new_answer_alias": aliases,
    }
    records = reading_of(entry).records
    assert [(r.request.subject, r.request.target_new) for r in records] == [(s, t) for s, _, t in rewrites]
    assert all(record.probes == () for record in records[:-1])
    names = tuple(dict.fromkeys([answer, *aliases]))
    assert [(p.prompt, p.answers) for p in records[-1].probes] == [(q, names) for q in questions]


@given(NAMES, NAMES, st.lists(st.tuples(WORDS, NAMES, st.lists(NAMES, max_size=2)), max_size=3))
@settings(max_examples=40, deadline=None)
def test_criteria_survive_a_round_trip(subject, target, tests):
    entry = {
        "edit": {"prompt": f"The name of the spouse of {subject} is {target}.", "relation": "SPOUSE"},
        "Forgetfulness": [checked_by(query(p, [value, *aliases])) for p, value, aliases in tests],
    }
    (record,) = reading_of(entry).records
    assert (record.request.subject, record.request.target_new) == (subject, target)
    assert [(p.prompt, p.answers) for p in record.probes] == [
        (p, tuple(dict.fromkeys([value, *aliases]))) for p, value, aliases in tests
    ]


UNTIDY = (None, [], [[]], {}, "", " ", 3, 2.5, float("nan"), True, "x", [None], [["x", None, 4]], {"a": 1})


def spoiled(value, wrong):
    """The value with one part replaced, at every depth."""
    yield wrong
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for new in spoiled(part, wrong):
            copy = value.copy()
            copy[key] = new
            yield copy


@pytest.mark.parametrize("name", SHAPES)
def test_damage_is_counted_and_never_a_traceback(name):
    """Every part of every format replaced by null, numbers, empty and nested lists: a record, or a named reason."""
    kept = lost = 0
    for wrong in UNTIDY:
        for entry in spoiled(SHAPES[name], wrong):
            if entry is wrong:
                continue
            for form in (None, name):
                reading = reading_of(entry, form=form, subject_optional=True)
                assert bool(reading.records) is not bool(reading.left_out), entry
                assert reading.left_out.total() == (not reading.records)
                assert all(line.startswith("record 1") for line in reading.problems)
                for record in reading.records:
                    assert all(
                        isinstance(a, str) and a for p in record.probes for a in (p.prompt, *p.answers)
                    )
                kept, lost = kept + bool(reading.records), lost + (not reading.records)
    assert kept > 0
    assert lost > 0


def test_missing_keys_of_probes_leave_the_record(write):
    entry = json.loads(json.dumps(SHAPES["knowedit"]))
    entry["portability"]["Reasoning"][0]["ground_truth"] = [[None, ""]]
    entry["portability"]["Logical_Generalization"] = None
    del entry["locality"]["Forgetfulness"][0]["prompt"]
    entry["locality"]["Relation_Specificity"] = {"prompt": ["Ada Falk's trade is", "p"], "ground_truth": [7]}
    with pytest.warns(UserWarning, match="1 record, 0 left out; 3 probes left out: ") as caught:
        (record,) = read_records(write("k.json", json.dumps([entry])))
    assert "Reasoning: no answer (1)" in str(caught[0].message)
    assert [(p.group, p.answers) for p in record.probes] == [
        ("Subject_Aliasing", ("Oslo",)),
        ("Relation_Specificity", ("7",)),
    ]


def test_summary_counts_entries_by_reason(write):
    bad = {**SHAPES["facts"], "target_new": " "}
    path = write("f.json", json.dumps([SHAPES["facts"], bad, 3, bad]))
    reading = read_file(path)
    assert (
        reading.summary == "4 records, 3 left out: target_new is empty (2), is not an object with fields (1)"
    )
    assert reading.plain() == {
        "entries": 4,
        "formats": {"facts": 3},
        "left_out": {"target_new is empty": 2, "is not an object with fields": 1},
        "probes_left_out": {},
    }
    with pytest.raises(
        MetakeError, match=r"record 1: target_new is empty; record 2: .* as docs/data.md shows"
    ):
        read_file(write("g.json", json.dumps([bad, bad])))


@pytest.mark.parametrize("text", ['[{"prompt": "a"},\n ]', '[{"prompt": "a", }]', '{"prompt": "a",}\n{}'])
def test_trailing_commas_are_named(text, write):
    with pytest.raises(
        MetakeError, match=r"a comma before a closing bracket: line 1 column \d+; remove the comma"
    ):
        read_file(write("t.json", text))


def test_columns_rename_any_container(write):
    """JSON, JSON Lines and CSV give equal records under any names of their columns."""
    rows = [("Where does Ada Falk live?", "Ada Falk", "Oslo"), ("Where is Bo Tarn?", "Bo Tarn", "Rome")]
    names = ("Question", "Entity", "Answer")
    entries = [dict(zip(names, row, strict=True)) for row in rows]
    files = {
        "c.csv": "\n".join(",".join(row) for row in (names, *rows)),
        "c.json": json.dumps(entries),
        "c.jsonl": "\n".join(map(json.dumps, entries)),
    }
    columns = parse_columns("prompt=Question, subject=entity,target=Answer")
    found = [read_file(write(name, text), columns=columns).records for name, text in files.items()]
    assert found[0] == found[1] == found[2]
    assert [record.request.text for record in found[0]] == [row[0] for row in rows]
    with pytest.raises(
        MetakeError, match="has no column 'answr', which --columns names for target; did you mean"
    ):
        read_file(write("c.csv", files["c.csv"]), columns={"target": "answr"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("promt=q", "unknown 'promt'; did you mean 'prompt'"),
        ("prompt", "write FIELD=COLUMN"),
        ("prompt=", "write FIELD=COLUMN"),
    ],
)
def test_parse_columns_names_what_is_wrong(text, complaint):
    with pytest.raises(MetakeError, match=complaint):
        parse_columns(text)


def test_unknown_format_lists_the_known_ones(write):
    with pytest.raises(MetakeError, match="--format: unknown 'zsr'; did you mean 'zsre'"):
        read_file(write("f.json", json.dumps([SHAPES["facts"]])), form="zsr")


def fake(monkeypatch, name, **content):
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def test_known_dataset_is_read_as_its_file(monkeypatch, write):
    path, asked = write("recent.json", json.dumps([SHAPES["knowedit"]])), []
    fake(monkeypatch, "datasets")
    monkeypatch.setattr(
        "transformers.utils.hub.cached_file", lambda *a, **k: asked.append((a, k)) or str(path)
    )
    reading = read_file("knowedit-wiki-recent")
    assert asked == [
        (("zjunlp/KnowEdit", "benchmark/wiki_recent/recent_test.json"), {"repo_type": "dataset"})
    ]
    assert dict(reading.formats) == {"knowedit": 1}


def test_known_dataset_of_tables_is_read_by_datasets(monkeypatch):
    asked = []
    fake(
        monkeypatch,
        "datasets",
        load_dataset=lambda *a, **k: asked.append((a, k)) or [SHAPES["counterfact"]],
    )
    assert read_file("counterfact").records == reading_of(SHAPES["counterfact"]).records
    assert asked == [(("azhx/counterfact",), {"split": "test"})]


def test_known_dataset_without_hub_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    fake(monkeypatch, "datasets", load_dataset=unreachable)
    monkeypatch.setattr("transformers.utils.hub.cached_file", unreachable)
    for dataset in DATASETS:
        with pytest.raises(
            MetakeError, match=r"cannot be loaded from the hub \(ConnectionError: no route to host\)"
        ):
            read_file(dataset.name)
    monkeypatch.delitem(sys.modules, "datasets")
    monkeypatch.setattr("metake.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MetakeError, match=r"--data counterfact: the package datasets is missing; pip install"
    ):
        read_file("counterfact")
    with pytest.raises(MetakeError, match="no such file; did you mean 'knowedit-zsre'"):
        read_file("knowedit_zsre")


def test_dataset_readers_are_known():
    assert {dataset.reader for dataset in DATASETS} <= {reader.name for reader in SHIPPED}


def of_strangers(entry):
    if "fact" not in entry:
        return None
    subject, relation, target = entry["fact"]
    return Record(EditRequest.from_text(f"{subject} {relation}", subject, target), probes=[("hop", "p", "a")])


def test_entry_point_adds_a_reader(monkeypatch):
    point = EntryPoint("triples", "tests.data.test_readers:of_strangers", "metake.reader")
    monkeypatch.setattr(table, "entry_points", lambda group: [point])
    entries = [{"fact": ["Ada", "lives in", "Oslo"]}, {"fact": ["Ada", "lives in", ""]}, SHAPES["facts"]]
    reading = reading_of(*entries)
    assert dict(reading.formats) == {"triples": 2, "facts": 1}
    assert reading.records[0].probes == (Probe("hop", "p", ("a",), "change"),)
    assert reading.summary == "3 records, 1 left out: Ada: target_new is empty (1)"
    assert reader_named("triples").name == "triples"


@pytest.mark.parametrize(
    "probe",
    [("g", "p"), ("g", "p", ()), ("g", "", ("a",)), ("g", "p", ("a",), "x"), ("g", "p", (3,)), (1, "p", "a")],
)
def test_record_refuses_other_probes(probe):
    with pytest.raises(MetakeError, match="probe"):
        Record(EditRequest("{} is", "Ada", "x"), probes=(probe,))
