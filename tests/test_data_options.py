"""`--format`, `--columns` and records without a subject, in the commands that read records."""

import json

import pytest

ULTRA = ["--methods", "ultraedit", "--no-generate", "--batch", 4, "--out", "o"]
SUBJECT = ["--set", "lookup=subject"]  # of the demo model's preset it is the prompt
KNOWN = ("What is the craft of Nezan Girok?", "Nezan Girok", "baker")


@pytest.fixture(autouse=True)
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def results():
    with open("o/results.json", encoding="utf-8") as file:
        return json.load(file)


def test_evaluate_reads_columns_and_counts_what_is_left_out(call, write):
    rows = ["q,entity,a", ",".join(KNOWN), "Who is it?,Nezan Girok,x", "What is Nezan Girok?,Nezan Girok,"]
    data = write("facts.csv", "\n".join(rows))
    columns = ["--columns", "prompt=q,subject=entity,target=a"]
    code, _, errors = call("evaluate", "--model", "demo", "--data", data, *columns, *ULTRA)
    assert code == 0, errors
    assert "3 records, 1 left out: has no field 'target_new' (1)" in errors
    content = results()
    assert content["edits"] == 2  # UltraEdit reads keys at the answer, and needs no subject
    assert content["reading"]["left_out"] == {"has no field 'target_new'": 1}
    memit = ["--methods", "memit,ultraedit", "--set", "steps=1", "--no-generate", "--out", "p"]
    code, _, errors = call("evaluate", "--model", "demo", "--data", data, *columns, *memit, *SUBJECT)
    assert code == 0, errors
    assert "3 records, 2 left out: has no field 'target_new' (1), no subject in the prompt (1)" in errors


def test_evaluate_without_any_subject_names_the_remedy(call, write):
    entry = {
        "question": "Who is Nezan Girok?",
        "answer": "A baker.",
        "sub_question": ["What?"],
        "sub_answer": ["b"],
    }
    data = write("unke.json", json.dumps([entry]))
    arguments = ["evaluate", "--model", "demo", "--data", data, "--methods", "memit", "--set", "steps=1"]
    code, out, errors = call(*arguments, *SUBJECT, "--no-generate", "--out", "o")
    assert (code, out) == (2, "")
    line = errors.splitlines()[-1]
    assert "no record names its subject in the prompt, which memit needs; add the field subject" in line
    code, out, errors = call(*arguments, "--set", "lookup=prompt", "--no-generate", "--out", "o")
    assert code == 0, errors
    assert "sub_question" in out
    assert results()["methods"][0]["mean"]["probes/sub_question/accuracy"] is not None


def test_edit_refuses_a_file_with_an_unusable_entry(call, write):
    """An edit of a file is of the whole file; evaluate counts what it leaves out."""
    entries = [
        dict(zip(("prompt", "subject", "target"), KNOWN, strict=True)),
        {"prompt": "x", "subject": "y"},
    ]
    data = write("facts.json", json.dumps(entries))
    arguments = ["edit", "--model", "demo", "--method", "ultraedit", "--delta-only", "--out", "e"]
    code, _, errors = call(*arguments, "--requests", data)
    assert code == 2
    assert "record 2 has no field 'target_new'" in errors
    question = write("q.json", json.dumps([{"q": KNOWN[0], "a": KNOWN[2]}]))
    columns = ["--requests", question, "--columns", "prompt=q,target=a"]
    code, _, errors = call("edit", "--model", "demo", "--method", "memit", "--out", "e", *columns, *SUBJECT)
    assert code == 2
    assert "no subject in the prompt, which memit needs" in errors
    assert call(*arguments, *columns)[0] in (0, 3)


def test_evaluate_names_an_unknown_format(call, write):
    data = write("facts.json", json.dumps([{"prompt": "x"}]))
    code, _, errors = call("evaluate", "--model", "demo", "--data", data, "--format", "zsr", *ULTRA)
    assert code == 2
    assert "--format: unknown 'zsr'; did you mean 'zsre'" in errors
