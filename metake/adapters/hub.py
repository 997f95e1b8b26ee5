"""Repositories of the Hugging Face hub that hold an adapter: upload and download."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metake.errors import MetakeError
from metake.extras import needs
from metake.files import as_path

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def _api(token: str | None) -> Any:
    with needs("adapters"):
        from huggingface_hub import HfApi
    return HfApi(token=token)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def push(
    repo_id: str, write: Callable[[Path], object], *, token: str | None = None, private: bool | None = None
) -> str:
    """Upload a folder to a repository, which is made if it does not exist.

    Args:
        repo_id: `owner/name`.
        write: writes the files into a folder.
        token: access token; default: that of the user.
        private: whether a new repository is private.

    Returns:
        Address of the commit.

    Raises:
        MetakeError: no name of a repository, or the hub cannot be reached or refuses the upload.
    """
    if not isinstance(repo_id, str) or not NAME.fullmatch(repo_id):
        raise MetakeError(f"push_to_hub: repo_id: must be owner/name, got {repo_id!r}")
    api = _api(token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "adapter"
        write(folder)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="Upload the adapter of an edit"
            )
        except Exception as error:  # the client raises whatever its transport raises
            raise MetakeError(
                f"push_to_hub: {repo_id}: {type(error).__name__}: {_reason(error)}; log in with hf auth login, or give token="
            ) from error
    return str(getattr(commit, "commit_url", commit))


def local_folder(folder: Path | str, what: str) -> Path:
    """A folder, or the local copy of a repository of the hub.

    Args:
        folder: the folder, or `owner/name` if there is no such folder.
        what: begins an error line.

    Returns:
        The folder; it need not exist.

    Raises:
        MetakeError: not a path, or a repository that cannot be downloaded.
    """
    path = as_path(folder, what)
    if path.exists() or not isinstance(folder, str) or not NAME.fullmatch(folder) or folder.startswith("."):
        return path
    try:
        found = _api(None).snapshot_download(folder, allow_patterns=["adapter_*", "README.md"])
    except Exception as error:  # the client raises whatever its transport raises
        raise MetakeError(
            f"{folder}: no such folder, and not available from the hub ({type(error).__name__})"
        ) from error
    return Path(found)
