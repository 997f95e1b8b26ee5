"""Upload and download with the hub's client replaced: no hub is reached."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from metake.deltas import Delta
from metake.errors import MetakeError

pytestmark = pytest.mark.parametrize("family", ["llama"])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Folder of repositories; `calls` lists what the client was asked for."""
    calls = []

    class Api:
        def __init__(self, token=None):
            calls.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            calls.append(("create", repo_id, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
            calls.append(("upload", commit_message))
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

        def snapshot_download(self, repo_id, *, allow_patterns):
            assert "adapter_*" in allow_patterns
            if not (tmp_path / "hub" / repo_id).exists():
                raise OSError("offline")
            return str(tmp_path / "hub" / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return SimpleNamespace(calls=calls, folder=tmp_path / "hub")


def test_push_uploads_the_folder_and_its_card(hub, tiny_model, delta):
    url = delta.push_to_hub("owner/edit", tiny_model, token="secret", private=True, base="owner/base")
    assert url == "https://hub/owner/edit/commit/1"
    assert hub.calls[:2] == [("token", "secret"), ("create", "owner/edit", True, True)]
    files = {path.name for path in (hub.folder / "owner" / "edit").iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors", "metake.json"}
    card = (hub.folder / "owner" / "edit" / "README.md").read_text()
    assert "base_model: owner/base" in card
    assert "--lora-modules edit=owner/edit" in card
    assert "secret" not in card
    assert Delta.from_pretrained("owner/edit", tiny_model).digest == delta.digest


@pytest.mark.parametrize("name", ["edit", "a/b/c", "", 3, "owner/with space"])
def test_push_refuses_what_is_no_name(hub, tiny_model, delta, name):
    with pytest.raises(MetakeError, match="push_to_hub: repo_id: must be owner/name, got "):
        delta.push_to_hub(name, tiny_model)
    assert hub.calls == []


def test_push_builds_the_adapter_before_the_hub_is_reached(hub, delta):
    with pytest.raises(MetakeError, match="give model="):
        delta.push_to_hub("owner/edit")
    assert hub.calls == []


def test_refused_upload_is_one_line(hub, tiny_model, delta, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("401\nUnauthorized")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(MetakeError) as raised:
        delta.push_to_hub("owner/edit", tiny_model)
    assert str(raised.value) == (
        "push_to_hub: owner/edit: PermissionError: 401 Unauthorized; log in with hf auth login, or give token="
    )


def test_repository_that_is_not_there_is_one_line(hub, tiny_model):
    with pytest.raises(MetakeError, match="owner/none: no such folder, and not available from the hub"):
        Delta.from_pretrained("owner/none", tiny_model)
    with pytest.raises(MetakeError, match="no such folder; give a PEFT adapter"):
        Delta.from_pretrained(Path("owner/none"), tiny_model)  # a path is no repository
