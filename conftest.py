"""Options that tests and verification share, and how many processes they run in."""

import gc
import os

import pytest

gc.disable()  # until the modules of the tests are imported, which make a million objects and no garbage


def pytest_collection_finish():
    """Leave out what was imported when garbage is collected: a tenth of the time of the tests."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers(config):
    """Folders in up to four processes, a file or a claim in this one; `-n N` and `-n 0` win."""
    if config.getoption("--claim") or any(".py" in argument for argument in config.args):
        return 0
    return min(4, os.cpu_count() or 1)


def pytest_addoption(parser):
    parser.addoption("--deep", action="store_true", help="also the slow checks (the real model, full sizes)")
    parser.addoption(
        "--verdicts",
        default="results/verification",
        metavar="DIR",
        help="where verification/ writes its verdicts as JSON, Markdown and HTML",
    )
    parser.addoption(
        "--claim", metavar="ID", help="run the tests of one claim of verification/ and print all about it"
    )
    parser.addoption(
        "--accept", action="store_true", help="write verification/expected.json from a complete run"
    )


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--deep"):
        skip = pytest.mark.skip(reason="slow; run with --deep")
        for item in items:
            if "deep" in item.keywords:
                item.add_marker(skip)
