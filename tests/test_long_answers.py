"""The script of long answers: a table, a figure and a JSON, and a finished edit that is kept."""

from tests.scripts import call_here

FEW = ("--model", "demo", "--edits", "1", "--sentences", "1", "--least", "5", "--methods", "memit-anyedit")


def test_long_answers_resumes(tmp_path, capsys):
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    edit = tmp_path / "edits" / "memit-anyedit" / "0000.json"
    written = edit.stat().st_mtime_ns
    table = (tmp_path / "demo.md").read_text()
    assert table.startswith("| method | tokens |")
    assert "`memit-anyedit`" in table
    assert (tmp_path / "demo.png").is_file()
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    assert edit.stat().st_mtime_ns == written
    assert (tmp_path / "demo.md").read_text() == table


def test_long_answers_refuses_another_run_and_short_answers(tmp_path):
    call_here("long_answers.py", *FEW, "--out", tmp_path)
    done = call_here("long_answers.py", *FEW, "--seed", "1", "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "holds another edit; give another --out" in done.stderr
    done = call_here("long_answers.py", *FEW[:-3], "900", *FEW[-2:], "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "--least: 0 answers have 900 tokens" in done.stderr
