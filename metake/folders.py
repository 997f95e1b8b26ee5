"""Folders that hold one result, written to a temporary folder and moved into place when complete.

`metake.json` lists the files of a result with their digests. The next result replaces these files, and a model is
loaded only if they are unchanged.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

import metake
from metake.errors import MetakeError
from metake.files import check_writable, expand, read_record, write_record

MANIFEST = "metake.json"
LARGE_PART = 2**22  # bytes that are hashed at once, while other threads run
FIGURES = ("realization.png",)  # drawn after the result is in place
NOT_VERIFIED = (
    "delta.safetensors",
    "result.json",
    "options.json",
)  # not part of the model: the first has its own digest, the others are not read with it
# files of a model folder, which --overwrite replaces
MODEL = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    *NOT_VERIFIED,
)
REMEDY = f"save the model again, or remove {MANIFEST} to load the folder without checks"


def cache_folder() -> Path:
    """Folder of the cache: `$METAKE_CACHE`, or `metake` in the user's cache folder. An empty value counts as none."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "metake"
    return expand(os.environ.get("METAKE_CACHE") or default)


def _entries(folder: Path) -> set[str]:
    """Names in a folder, except hidden ones."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def _earlier(folder: Path, overwrite: bool) -> set[str]:
    """Names of the files of an earlier result; with `overwrite`, of any model."""
    names = _entries(folder)
    if overwrite:
        return {
            n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in (MANIFEST, *FIGURES, *MODEL))
        }
    if MANIFEST not in names:
        return set()
    listed = read_record(folder / MANIFEST, "choose another folder, or give --overwrite")["files"]
    return names & {MANIFEST, *FIGURES, *(Path(name).parts[0] for name in listed)}


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Check before any work that a result can be written into a folder.

    Args:
        folder: the folder.
        overwrite: whether files of any model are replaced.

    Raises:
        MetakeError: the folder cannot be written, or holds files that do not belong to an earlier result. With
            `overwrite`, files of a model are replaced and other files kept.
    """
    check_writable(folder, folder=True)
    if folder.is_dir() and not overwrite:
        _refuse_others(folder, _earlier(folder, overwrite))


def check_run_folder(folder: Path, names: Collection[str], *, overwrite: bool = False) -> None:
    """`check_folder` for a resumable run, whose own files are `names`.

    Args:
        folder: the folder.
        names: names of the files of the run.
        overwrite: whether other files are accepted.
    """
    check_writable(folder, folder=True)
    if folder.is_dir() and not overwrite:
        _refuse_others(folder, names)


def _refuse_others(folder: Path, names: Collection[str]) -> None:
    others = sorted(_entries(folder).difference(names))
    if others:
        more = ", ..." if len(others) > 3 else ""
        raise MetakeError(
            f"{folder}: holds other files ({', '.join(others[:3])}{more}); "
            "choose another folder, or give --overwrite"
        )


@contextmanager
def result_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Temporary folder for a result. When the block succeeds, its files replace those of an earlier result.

    Args:
        folder: the folder of the result.
        overwrite: whether files of any model are replaced.

    Yields:
        The temporary folder.

    Raises:
        MetakeError: the folder cannot be written, e.g. because the disk is full. No new file is left, and an earlier
            result is unchanged.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as temporary:
            place = Path(temporary)
            yield place
            _put_in_place(place, folder, _earlier(folder, overwrite))
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise MetakeError(
            f"{folder}: cannot be written ({reason}); free disk space, or choose another path"
        ) from error
    finally:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _put_in_place(place: Path, folder: Path, earlier: set[str]) -> None:
    files = {str(f.relative_to(place)): f for f in sorted(place.rglob("*")) if f.is_file()}
    listed = {name: file_digest(file) for name, file in files.items()}
    names = sorted(_entries(place))
    write_record(place / MANIFEST, {"version": metake.__version__, "files": listed})
    mode = (place / MANIFEST).stat().st_mode  # follows the umask, unlike the files of safetensors
    for file in files.values():
        file.chmod(mode)
    for name in earlier:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    for name in (*names, MANIFEST):  # the manifest last, so that it never lists a file that is not there
        (place / name).replace(folder / name)


def file_digest(file: Path) -> str:
    """SHA-256 of a file.

    Args:
        file: the file.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(LARGE_PART):
            digest.update(part)
    return digest.hexdigest()


def verify(folder: Path) -> None:
    """Check the files of a model folder against `metake.json`, if it has one.

    Args:
        folder: the folder of the model.

    Raises:
        MetakeError: a file is missing or changed; the line names it.
    """
    if not (folder / MANIFEST).exists():
        return
    for name, wanted in read_record(folder / MANIFEST, REMEDY)["files"].items():
        if name not in NOT_VERIFIED and not (
            (folder / name).is_file() and file_digest(folder / name) == wanted
        ):
            raise MetakeError(f"{folder / name}: damaged or changed since metake wrote it; {REMEDY}")
