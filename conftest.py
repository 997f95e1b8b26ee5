"""Options that tests and verification share."""

import pytest


def pytest_addoption(parser):
    parser.addoption("--deep", action="store_true", help="also the slow checks (the real model, full sizes)")
    parser.addoption(
        "--verdicts", default="results/verification", metavar="DIR",
        help="where verification/ writes its verdicts as JSON, Markdown and HTML",
    )  # fmt: skip


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--deep"):
        skip = pytest.mark.skip(reason="slow; run with --deep")
        for item in items:
            if "deep" in item.keywords:
                item.add_marker(skip)
