"""Only a complete run of `verification/` writes verdicts, and in it a file without a test is a loss."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import settings

from verification import conftest as run
from verification.outcome import Outcome

ROOT = run.HERE.parent


def partial(*arguments, folder=ROOT, status=pytest.ExitCode.OK, **options):
    """What a run with these arguments and options lacks."""
    config = SimpleNamespace(
        args=arguments,
        invocation_params=SimpleNamespace(dir=folder),
        getoption=lambda name, default=None: options.get(name, default),
    )
    return run._partial(config, status)


@pytest.fixture(autouse=True)
def nothing_left_out(monkeypatch):
    monkeypatch.setattr(run, "_deselected", 0)
    monkeypatch.setattr(run, "_outcomes", [])
    monkeypatch.setattr(run, "_examples", lambda: 150)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verification/",),
        ("verification",),
        (".",),
        ("tests", "verification"),
        tuple(f"verification/{f.name}" for f in run.FILES),
    ],
    ids=["slash", "folder", "root", "both", "files"],
)
def test_a_run_that_is_asked_for_all_files_is_complete(arguments):
    assert partial(*arguments) == ""


def test_the_folder_may_be_given_from_inside():
    assert partial(".", folder=run.HERE) == ""


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("tests",), {}),
        (("verification/test_ball.py",), {}),
        (("verification/test_ball.py::test_x",), {}),
        (
            (
                "tests/solvers/test_allocation.py",
                *(f"verification/{f.name}" for f in run.FILES if "allocation" not in f.name),
            ),
            {},
        ),
        (("verification",), {"ignore": ["verification/test_allocation.py"]}),
        (("verification",), {"ignore_glob": ["verification/test_a*.py"]}),
        (("verification",), {"deselect": ["verification/test_ball.py::test_x"]}),
        (("verification",), {"markexpr": "not deep"}),
        (("verification",), {"keyword": "not bound"}),
        (("verification",), {"lf": True}),
    ],
    ids=[
        "tests",
        "file",
        "test",
        "same name elsewhere",
        "ignored",
        "ignored by a pattern",
        "deselected",
        "mark",
        "keyword",
        "last failed",
    ],
)
def test_a_run_that_leaves_something_out_is_partial(arguments, options):
    assert partial(*arguments, **options)


def test_a_run_whose_plugins_left_tests_out_is_partial(monkeypatch):
    monkeypatch.setattr(run, "_deselected", 1)
    assert partial("verification") == "tests were left out"


@pytest.mark.parametrize(
    ("status", "maxfail", "state", "stopped"),
    [
        (pytest.ExitCode.INTERRUPTED, 0, "passed", True),
        (pytest.ExitCode.INTERNAL_ERROR, 0, "passed", True),
        (pytest.ExitCode.TESTS_FAILED, 1, "failed", True),
        (pytest.ExitCode.TESTS_FAILED, 1, "hollow", True),
        (pytest.ExitCode.TESTS_FAILED, 0, "failed", False),
        (pytest.ExitCode.OK, 1, "passed", False),
        (pytest.ExitCode.OK, 1, "skipped", False),
    ],
)
def test_a_run_that_was_stopped_is_partial(monkeypatch, status, maxfail, state, stopped):
    """By a signal, an error of pytest itself, or `--maxfail`; failures alone do not make it partial."""
    monkeypatch.setattr(run, "_outcomes", [SimpleNamespace(state=state)])
    assert partial("verification", status=status, maxfail=maxfail) == ("it was stopped" if stopped else "")


def test_fewer_examples_make_no_verdict(monkeypatch):
    monkeypatch.setattr(run, "_examples", lambda: settings.get_profile("glance").max_examples)
    assert "fewer examples" in partial("verification")


@pytest.mark.parametrize("lacks", ["", "tests were left out"], ids=["complete", "partial"])
@pytest.mark.parametrize("wanted", [None, "T1"], ids=["all claims", "one claim"])
def test_a_summary_writes_verdicts_of_a_complete_run_alone(monkeypatch, tmp_path, lacks, wanted):
    """A partial run, or one of a single claim, prints what it has seen and leaves the committed files as they are."""
    said, options = [], {"--claim": wanted, "--verdicts": tmp_path / "v", "--accept": False, "--deep": False}
    if lacks:
        options["--accept"] = True  # is not followed by a partial run
    monkeypatch.setattr(
        run, "_outcomes", [Outcome("test_a.py::test_b", "passed", (("T1", "random", "", False),))]
    )
    monkeypatch.setattr(run, "_partial", lambda *_: lacks)
    monkeypatch.setattr(run, "write_expected", lambda _: said.append("expected.json"))
    reporter = SimpleNamespace(write=said.append, write_line=lambda line, **_: said.append(line))
    run.pytest_terminal_summary(reporter, 0, SimpleNamespace(getoption=options.__getitem__))
    text = "\n".join(said)
    files = sorted(path.name for path in tmp_path.rglob("verdicts.*"))
    assert "T1" in text
    assert "expected.json" not in said
    assert files == ([] if lacks or wanted else ["verdicts.html", "verdicts.json", "verdicts.md"])
    assert ("no verdicts written" in text) == bool(lacks and not wanted)


@pytest.fixture
def reported(monkeypatch):
    """`reported(node)`: the files of this folder that are known after a report of the node."""
    monkeypatch.setattr(run, "_files", set())
    monkeypatch.setattr(run, "_root", ROOT)

    def report(node):
        run.pytest_runtest_logreport(SimpleNamespace(nodeid=node, when="setup", outcome="passed"))
        return run._files - {"test_complete.py"}  # this file's own reports

    return report


def test_a_file_of_the_same_name_elsewhere_does_not_count(reported):
    assert reported("tests/solvers/test_allocation.py::test_x") == set()
    assert reported("verification/test_allocation.py::test_x") == {"test_allocation.py"}


def test_a_file_without_a_report_is_a_loss(reported):
    for file in run.FILES[1:]:
        reported(f"verification/{file.name}::test_x")
    assert run._silent() == [f"{run.FILES[0].name} reported no test"]
    assert run._silent()[0] in run.unexpected([], deep=True)


def test_a_run_without_assertions_is_refused():
    command = [sys.executable, "-O", "-m", "pytest", "verification/test_ball.py", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "Python removes the assertions" in done.stderr + done.stdout
