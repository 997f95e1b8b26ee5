"""Folders that hold one result, written aside and put in place when it is whole.

`metake.json` lists the files of a result with the digest of each: they are ours, to be replaced by the next result,
and a model is loaded only if they are as they were written.
"""

from __future__ import annotations

import fnmatch
import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

import metake
from metake.errors import MetakeError
from metake.files import check_writable, read_record, write_record

MANIFEST = "metake.json"
DRAWN = ("realisation.png",)  # when the result is in place
APART = (
    "delta.safetensors",
    "result.json",
)  # not of the model: with a digest of its own, and never read back
# what a model folder consists of, and so what --overwrite replaces
MODEL = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json", "pytorch_model*",
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "chat_template*", *APART,
)  # fmt: skip
REMEDY = f"save the model again, or remove {MANIFEST} to load the folder as it is"


def _entries(folder: Path) -> set[str]:
    """Names in a folder, without hidden ones."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def _earlier(folder: Path, overwrite: bool) -> set[str]:
    """Names of an earlier result's files; with `overwrite` of any model's."""
    names = _entries(folder)
    if overwrite:
        return {
            n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in (MANIFEST, *DRAWN, *MODEL))
        }
    if MANIFEST not in names:
        return set()
    listed = read_record(folder / MANIFEST, "choose another folder, or give --overwrite")["files"]
    return names & {MANIFEST, *DRAWN, *(Path(name).parts[0] for name in listed)}


def check_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Find out before any work whether a result can be written into a folder.

    Raises:
        MetakeError: it cannot be written, or holds files that are not of an earlier result; with `overwrite` those of
            a model are replaced and others left alone.
    """
    check_writable(folder, folder=True)
    if folder.is_dir() and not overwrite:
        _refuse_others(folder, _earlier(folder, overwrite))


def check_run_folder(folder: Path, names: Collection[str], *, overwrite: bool = False) -> None:
    """The same for a run that writes files of these names one by one, and finds some of them there when it resumes."""
    check_writable(folder, folder=True)
    if folder.is_dir() and not overwrite:
        _refuse_others(folder, names)


def _refuse_others(folder: Path, names: Collection[str]) -> None:
    others = sorted(_entries(folder).difference(names))
    if others:
        more = ", ..." if len(others) > 3 else ""
        raise MetakeError(
            f"{folder}: holds files of something else ({', '.join(others[:3])}{more}); "
            "choose another folder, or give --overwrite"
        )


@contextmanager
def result_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write a result into, whose files take the place of an earlier result's when the block ends well.

    Raises:
        MetakeError: the disk is full, or otherwise cannot be written; nothing is left behind, an earlier result is
            untouched.
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
            f"{folder}: cannot be written ({reason}); free the disk or choose another place"
        ) from error
    finally:
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _put_in_place(place: Path, folder: Path, earlier: set[str]) -> None:
    files = {str(f.relative_to(place)): f for f in sorted(place.rglob("*")) if f.is_file()}
    listed = {name: _digest(file) for name, file in files.items()}
    names = sorted(_entries(place))
    write_record(place / MANIFEST, {"version": metake.__version__, "files": listed})
    mode = (place / MANIFEST).stat().st_mode  # by the umask; safetensors takes all rights but the owner's
    for file in files.values():
        file.chmod(mode)
    for name in earlier:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    for name in (*names, MANIFEST):  # the list last: without it what lies there is not ours
        (place / name).replace(folder / name)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def verify(folder: Path) -> None:
    """Refuse a model folder of ours whose files are not as they were written; one without a list is as it is.

    Raises:
        MetakeError: a file is missing or changed; the line names it.
    """
    if not (folder / MANIFEST).exists():
        return
    for name, wanted in read_record(folder / MANIFEST, REMEDY)["files"].items():
        if name not in APART and not ((folder / name).is_file() and _digest(folder / name) == wanted):
            raise MetakeError(f"{folder / name}: damaged or changed since metake wrote it; {REMEDY}")
