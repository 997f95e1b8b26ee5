"""Profiles of hypothesis, and the collection of evidence into verdicts."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported: several workers on two cores must not fight over threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from verification import ledger
from verification.verdicts import Outcome, render_terminal, verdicts, write_verdicts

torch.set_num_threads(1)

COMMON = {"deadline": None, "print_blob": True,
          "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}  # fmt: skip
settings.register_profile("verification", max_examples=150, derandomize=True, **COMMON)
# other examples than the derandomized ones: `--hypothesis-profile=seeds --hypothesis-seed=N`
settings.register_profile("seeds", max_examples=150, database=None, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)
# few examples, no shrinking: to see whether a mistake is noticed, not to understand it
for name, examples in (("glance", 5), ("mutants", 60)):
    settings.register_profile(
        name, max_examples=examples, derandomize=True, deadline=None, database=None, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.target), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
# Hypothesis draws numbers that it finds in the source of loaded modules: which examples a derandomized test
# sees would depend on what else is imported, hence on the selection, on the worker and on the checkout's path.
providers._get_local_constants = Constants  # none

settings.load_profile("verification")  # --hypothesis-profile still wins

_outcomes: list[Outcome] = []


def pytest_collection_modifyitems(items):
    """Marks travel with the reports: the controller of parallel workers sees no items."""
    for item in items:
        for mark in item.iter_markers("checks"):
            item.user_properties.append(("checks", [*mark.args, mark.kwargs]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    record = ledger.begin()
    try:
        return (yield)
    finally:
        item.user_properties.append(("evidence", record.as_dict()))


def pytest_runtest_logreport(report):
    """Runs in the controller, for the reports of all workers."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes.append(Outcome.from_report(report))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    if hasattr(config, "workerinput"):
        return
    outcomes = [o for o in _outcomes if o.claims]
    if not outcomes:
        return
    rows = verdicts(outcomes)
    folder = Path(config.getoption("--verdicts"))
    write_verdicts(rows, folder)
    terminalreporter.write_line("")
    terminalreporter.write(render_terminal(rows))
    terminalreporter.write_line(f"verdicts: {folder}/verdicts.html, .md, .json")
