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


def test_check_pages_names_missing_programs(calls, monkeypatch, tmp_path):
    """Missing programs are named and nothing is done."""
    monkeypatch.setattr(
        check_pages.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "node" else None
    )
    done = call_here("check_pages.py", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, chromium, npm cannot be had here\n"
    assert calls == []
    assert not (tmp_path / "out").exists()


def test_check_pages_installs_missing_packages_alone(calls, monkeypatch, tmp_path):
    present = ("apt-get", "node", "npm")
    monkeypatch.setattr(check_pages.shutil, "which", lambda name: name if name in present else None)
    done = call_here("check_pages.py", "--install", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, chromium cannot be had here\n"
    assert calls[-1] == ["apt-get", "--quiet", "install", "--yes", "--no-install-recommends", "chromium"]


def test_check_pages_skips_without_a_registry(calls, monkeypatch, tmp_path):
    """An unreachable registry skips before pages are made."""
    monkeypatch.setattr(check_pages.shutil, "which", lambda name: name)
    done = call_here("check_pages.py", "--out", tmp_path / "out")
    assert done.stdout == "check_pages: skipped, npm cannot install axe-core and puppeteer-core\n"
    assert [words[0] for words in calls] == ["npm"]


def test_check_pages_names_a_missing_page(calls, tmp_path):
    assert "missing.html: no such page" in refused("check_pages.py", "missing.html", out=tmp_path / "out")
    assert calls == []
