"""The suite rejects wrong formulas: every mistake of the catalog makes one of the claims' tests fail."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import settings

import verification
from theory.claims import CLAIMS
from verification.mutants import CATALOG, Mutant


@cache
def evidence_of(module: str) -> list[Callable]:
    """Tests of one module that are evidence for a claim."""
    items = vars(importlib.import_module(f"verification.{module}")).values()
    return [i for i in items if any(m.name == "checks" for m in getattr(i, "pytestmark", []))]


@cache
def modules() -> list[str]:
    """Test modules, quickest kind first; symbolic derivations and enclosures hardly meet the functions."""
    names = [m.name for m in pkgutil.iter_modules(verification.__path__) if m.name.startswith("test_")]
    slow = ("test_enclosed", "test_proved", "test_derived", "test_product")
    return sorted(set(names) - {"test_powerful"}, key=lambda n: (n.startswith(slow), n))


def calls(test: Callable) -> Iterator[dict[str, Any]]:
    """Arguments of a test under its `parametrize` marks; nothing for tests that are skipped here."""
    marks = getattr(test, "pytestmark", [])
    if any(m.name in ("deep", "skipif") for m in marks):
        return
    axes = []
    for mark in marks:
        if mark.name == "parametrize":
            names = (
                [n.strip() for n in mark.args[0].split(",")]
                if isinstance(mark.args[0], str)
                else mark.args[0]
            )
            values = [v for v in mark.args[1] if not getattr(v, "marks", ())]
            rows = [
                getattr(v, "values", (v,) if len(names) == 1 else v)
                if hasattr(v, "marks")
                else (v if len(names) > 1 else (v,))
                for v in values
            ]
            axes.append([dict(zip(names, row, strict=True)) for row in rows])
    for combination in itertools.product(*axes):
        yield {k: v for part in combination for k, v in part.items()}


def candidates(mutant: Mutant) -> list[Callable]:
    """Tests that could notice: those of the claims that name the function, or of the module named."""
    if mutant.tests:
        return evidence_of(mutant.tests)
    function = f"{mutant.where.__name__.split('.')[-1]}.{mutant.name}"
    concerned = {c.id for c in CLAIMS if function in c.functions}
    assert concerned, f"no claim names {function}"
    return [
        t
        for name in modules()
        for t in evidence_of(name)
        if any(m.name == "checks" and m.args[0] in concerned for m in t.pytestmark)
    ]


def rejected_by(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable, dict[str, Any]] | None:
    """The first test that fails, with its arguments: one call of each test at a glance, all calls, and all for longer."""
    for profile, count in (("glance", 1), ("glance", None), ("mutants", None)):
        for test in candidates(mutant):
            quicken(test, profile, monkeypatch)
            for arguments in itertools.islice(calls(test), count):
                try:
                    test(**arguments)
                except (Exception, pytest.fail.Exception):  # what pytest.raises misses is no Exception
                    return test, arguments
    return None


def quicken(test: Callable, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few examples, no shrinking: a mistake that needs more would be found by luck.

    A property takes its settings when it is defined, so a profile that is loaded now does not reach it.
    """
    name = "_hypothesis_internal_use_settings"
    if hasattr(test, name):
        monkeypatch.setattr(test, name, settings.get_profile(profile))


@pytest.mark.parametrize("mutant", CATALOG, ids=lambda m: m.id)
def test_mistake_is_rejected(mutant: Mutant, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(mutant.where, mutant.name, mutant.formula)
        found = rejected_by(mutant, monkeypatch)
    assert found, "every test passes with this mistake in place"
    test, arguments = found
    test(**arguments)  # and it is the mistake that it rejects: without it the same test passes


def test_the_catalog_is_large_and_without_repetition():
    assert len(CATALOG) >= 60
    assert len({m.id for m in CATALOG}) == len(CATALOG)
