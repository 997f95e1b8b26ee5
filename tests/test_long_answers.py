"""The script of long answers: a table, a figure and a JSON, and a finished edit that is kept."""

import json

import pytest

from tests.scripts import call_here

FEW = ("--model", "demo", "--edits", "1", "--sentences", "1", "--least", "5", "--methods", "memit-anyedit")


def test_long_answers_resumes(tmp_path, capsys):
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    edit = tmp_path / "edits" / "memit-anyedit" / "0000.json"
    written = edit.stat().st_mtime_ns
    table = (tmp_path / "demo.md").read_text()
    assert table.startswith("| method | answers | tokens |")
    assert "| `unedited` | 1 |" in table
    assert "[" not in table, "one answer has no interval"
    assert "`memit-anyedit`" in table
    assert (tmp_path / "demo.png").is_file()
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    assert edit.stat().st_mtime_ns == written
    assert (tmp_path / "demo.md").read_text() == table
    call_here("long_answers.py", *FEW[:3], "3", *FEW[4:], "--together", "2", "--out", tmp_path)
    assert edit.stat().st_mtime_ns == written
    scores = json.loads((tmp_path / "demo.json").read_text())["scores"]["memit-anyedit"]
    values = [scores[i]["locality"] for i in range(3)]
    cell = (tmp_path / "demo.md").read_text().strip().splitlines()[-1].split(" | ")[7]
    mean, low, high = (float(part) for part in cell.replace("[", "").replace(",", "").rstrip("]").split())
    assert min(values) - 1e-3 <= low <= mean <= high <= max(values) + 1e-3
    assert mean == pytest.approx(sum(values) / 3, abs=1e-3)


def test_long_answers_refuses_another_run_and_short_answers(tmp_path):
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    done = call_here("long_answers.py", *FEW, "--seed", "1", "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "holds another edit; give another --out" in done.stderr
    done = call_here("long_answers.py", *FEW[:-3], "900", *FEW[-2:], "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "--least: 0 answers have 900 tokens" in done.stderr


def test_long_answers_reads_unke_whose_questions_name_no_subject(tmp_path):
    """Methods that need a subject are refused, and take the prompt's last token if that is asked for."""
    answers = ("Ada is a kind person and the guild is Red Anchor.", "He is a baker.")
    questions = ("Who is Nezan Girok?", "Who is Zumi Bama?")
    entries = [
        {"id": i, "question": question, "answer": answer, "sub_question": [], "sub_answer": []}
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    data = tmp_path / "unke.json"
    data.write_text(json.dumps(entries))
    few = (*FEW[:-1], "memit,memit-anyedit", "--data", data, "--set", "steps=1", "--out", tmp_path / "out")
    done = call_here("long_answers.py", *few, "--set", "lookup=subject", check=False)
    assert done.returncode == 2
    assert "no record names its subject in the prompt, which memit needs" in done.stderr
    call_here("long_answers.py", *few, "--set", "lookup=prompt")
    kept = json.loads((tmp_path / "out" / "edits" / "memit" / "0000.json").read_text())
    assert kept["key"]["request"]["target_new"] == answers[0], "the second is too short"
    assert kept["key"]["method"]["lookup"] == "prompt"
    content = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert set(content["scores"]) == {"unedited", "memit", "memit-anyedit"}
