"""Installed packages are searched for entry points once, and again when a package is installed."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from metake.components import families
from metake.packages import entry_points


def install(site, name):
    info = site / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[metake.test]\n{name} = {name}:main\n")


@pytest.fixture
def searches(monkeypatch):
    # other tests write into the working folder, which is searched again then
    folders = [folder for folder in sys.path if Path(folder).resolve() != Path.cwd()]
    monkeypatch.setattr(sys, "path", folders)
    found, search = [], metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda: found.append(1) or search())
    return found


def test_entry_points_are_searched_once_for_all_groups(searches):
    entry_points("metake.reader")
    searches.clear()
    for _ in range(2):
        families()
        assert {point.group for point in entry_points("console_scripts")} == {"console_scripts"}
    assert searches == []


def test_entry_points_of_a_package_that_was_just_installed_are_found(searches, monkeypatch, tmp_path):
    """Into a new folder of the search path, and into one that was searched before."""
    for name in ("first", "second"):
        install(tmp_path, name)
        if name == "first":
            monkeypatch.syspath_prepend(tmp_path)
        assert name in [point.name for point in entry_points("metake.test")]
    assert len(searches) == 2
