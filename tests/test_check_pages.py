"""The check of pages is skipped with a line where its programs cannot be had, before any work."""

import subprocess

import pytest

from experiments import check_pages
from tests.scripts import call_here, refused


@pytest.fixture
def calls(monkeypatch):
    """Commands that would run; none does."""
    made = []
    monkeypatch.setattr(
        check_pages.subprocess,
        "run",
        lambda words, **_: (
            made.append([str(word) for word in words]) or subprocess.CompletedProcess(words, 1)
        ),
    )
    return made


def test_missing_programs_are_named_and_nothing_is_done(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(
        check_pages.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "node" else None
    )
    done = call_here("check_pages.py", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, chromium, npm cannot be had here\n"
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_install_tries_the_missing_packages_alone(calls, monkeypatch, tmp_path):
    present = ("apt-get", "node", "npm")
    monkeypatch.setattr(check_pages.shutil, "which", lambda name: name if name in present else None)
    done = call_here("check_pages.py", "--install", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, chromium cannot be had here\n"
    assert calls[-1] == ["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", "chromium"]


def test_an_unreachable_registry_skips_before_pages_are_made(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(check_pages.shutil, "which", lambda name: name)
    done = call_here("check_pages.py", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, npm cannot install axe-core and puppeteer-core\n"
    assert [words[0] for words in calls] == ["npm"]


def test_a_page_that_is_not_there_is_named(calls, tmp_path):
    assert "missing.html: no such page" in refused("check_pages.py", "missing.html", out=tmp_path / "out")
    assert calls == []
