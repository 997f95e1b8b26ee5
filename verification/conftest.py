"""Profiles of hypothesis, and the collection of evidence into verdicts."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: several workers on two cores must not fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, Phase, is_hypothesis_test, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from theory.claims import CLAIMS
from verification import ledger
from verification.expected import additions, gather, losses, read_expected, write_expected
from verification.outcome import Outcome
from verification.verdicts import card, render_terminal, verdicts, write_verdicts

torch.set_num_threads(1)

COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("verification", max_examples=150, derandomize=True, **COMMON)
# other examples than the derandomized ones: `--hypothesis-profile=seeds --hypothesis-seed=N`
settings.register_profile("seeds", max_examples=150, database=None, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)
# few examples, no shrinking: to see whether a mistake is noticed, not to understand it
for name, examples in (("glance", 5), ("mutants", 60)):
    settings.register_profile(
        name,
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.target),
        suppress_health_check=list(HealthCheck),
    )
# Hypothesis draws numbers that it finds in the source of loaded modules: which examples a derandomized test
# sees would depend on what else is imported, hence on the selection, on the worker and on the checkout's path.
providers._get_local_constants = Constants  # none

settings.load_profile("verification")  # --hypothesis-profile still wins

HERE = Path(__file__).resolve().parent
FILES = sorted(HERE.glob("test_*.py"))
LEAVES_OUT = (
    "ignore",
    "ignore_glob",
    "deselect",
    "keyword",
    "markexpr",
    "lf",
)  # options that leave tests out

_outcomes: list[Outcome] = []
_files: set[str] = set()  # of this folder, of the tests that were reported
_deselected = 0
_root = HERE.parent  # what node ids are relative to


def pytest_configure(config):
    """Without assertions the evidence would be recorded whatever happens."""
    global _root
    _root = config.rootpath
    if not __debug__:
        raise pytest.UsageError(
            "verification/: Python removes the assertions; run it without -O and PYTHONOPTIMIZE"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Marks travel with the reports: the controller of parallel workers sees no items."""
    wanted = config.getoption("--claim")
    if wanted and wanted not in {c.id for c in CLAIMS}:
        raise pytest.UsageError(f"--claim {wanted}: no such claim; known: {', '.join(c.id for c in CLAIMS)}")
    left_out = []
    for item in items:
        marks = list(item.iter_markers("checks"))
        for mark in marks:
            item.user_properties.append(("checks", [*mark.args, mark.kwargs]))
        if is_hypothesis_test(getattr(item, "function", None)):
            item.user_properties.append(("sampled", True))
        if wanted and not any(mark.args[0] == wanted for mark in marks):
            left_out.append(item)
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    record = ledger.begin()
    try:
        result = yield
        marks = [(*mark.args, mark.kwargs["refutes"]) for mark in item.iter_markers("checks")]
        if lines := ledger.unmet(marks, record.obligations):
            item.user_properties.append(("state", "hollow"))
            raise AssertionError("passed without evidence: " + "; ".join(lines))
        return result
    finally:
        item.user_properties.append(("evidence", record.as_dict()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is marked as expected to fail is no evidence, whether it does or not: it fails."""
    report = yield
    if hasattr(report, "wasxfail"):
        report.user_properties.append(("state", "xfail"))
        report.outcome, report.longrepr = "failed", f"xfail is a failure here: {report.wasxfail}"
        del report.wasxfail
    return report


def pytest_runtest_logreport(report):
    """Runs in the controller, for the reports of all workers, also of other folders."""
    path = (_root / report.nodeid.split("::")[0]).resolve()
    if path.parent != HERE:
        return
    _files.add(path.name)
    if report.when == "call" or report.outcome != "passed":
        _outcomes.append(Outcome.from_report(report))


def pytest_deselected(items):
    global _deselected
    _deselected += len(items)


def pytest_testnodedown(node):
    """From a worker to the controller: how many tests it left out."""
    global _deselected
    _deselected = max(
        _deselected, node.workeroutput.get("deselected", 0) if hasattr(node, "workeroutput") else 0
    )


def _examples() -> int:
    """How many examples a property draws in this run, unless it has settings of its own."""
    return settings.default.max_examples


def _partial(config, exitstatus) -> str:
    """Why this run was not asked for all of `verification/`, or did not come to its end; nothing if neither holds."""
    stopped = config.getoption("maxfail") and any(o.state not in ("passed", "skipped") for o in _outcomes)
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or stopped:
        return "it was stopped"
    given = {(config.invocation_params.dir / argument).resolve() for argument in config.args}
    left = [file for file in FILES if not given & {file, *file.parents}]
    if left:
        return f"{len(left)} of its files did not run"
    if _deselected or any(config.getoption(option, None) for option in LEAVES_OUT):
        return "tests were left out"
    if _examples() < settings.get_profile("verification").max_examples:
        return "it drew fewer examples than the profile `verification`"
    return ""


def _silent() -> list[str]:
    """Files without a report: all their tests are gone, or skipped before they were collected."""
    return [f"{file.name} reported no test" for file in FILES if file.name not in _files]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    """Lost evidence fails a complete run, as a failed test does."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["deselected"] = _deselected
        return
    outcomes = [o for o in _outcomes if o.claims]
    wanted = config.getoption("--claim")
    if wanted and losses(read_expected(), gather(outcomes), wanted):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if not outcomes or _partial(config, exitstatus) or config.getoption("--accept"):
        return
    if unexpected(outcomes, deep=config.getoption("--deep")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def unexpected(outcomes: list[Outcome], deep: bool) -> list[str]:
    """Lines that say how the evidence differs from what is expected; with --deep there may be more of it."""
    expected, found = read_expected(), gather(outcomes)
    lost = _silent() + [f"{c.id} {line}" for c in CLAIMS for line in losses(expected, found, c.id)]
    return lost + ([] if deep else additions(expected, found))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if hasattr(config, "workerinput"):
        return
    outcomes = [o for o in _outcomes if o.claims]
    if not outcomes:
        return
    write, partial = terminalreporter.write_line, _partial(config, exitstatus)
    write("")
    if not partial and config.getoption("--accept"):
        broken = [o.test for o in outcomes if o.state not in ("passed", "skipped")]
        if broken or _silent():
            write(
                f"evidence not accepted: {len(broken)} tests did not pass; {len(_silent())} files without a test",
                red=True,
            )
        else:
            for line in unexpected(outcomes, deep=True):
                write(f"no longer expected: {line}", red=True)
            write_expected(gather(outcomes))
    expected = read_expected()
    rows = verdicts(outcomes, expected)
    if wanted := config.getoption("--claim"):
        terminalreporter.write(card(wanted, outcomes, expected))
        return
    if partial:
        seen = {claim for outcome in outcomes for claim, *_ in outcome.claims}
        terminalreporter.write(render_terminal([row for row in rows if row.id in seen]))
        write(f"partial run of verification/, {partial}: no verdicts written")
        return
    folder = Path(config.getoption("--verdicts"))
    write_verdicts(rows, folder, expected)
    terminalreporter.write(render_terminal(rows))
    for line in unexpected(outcomes, config.getoption("--deep")):
        write(f"evidence differs: {line}", red=True)
    write(f"verdicts: {folder}/verdicts.html, .md, .json")
