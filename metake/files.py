"""Atomic writes of text and JSON: a temporary file is written and renamed.

Files that are read back carry the SHA-256 of their content, so that damaged ones are refused; docs/files.md lists
them.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from metake.errors import MetakeError

if TYPE_CHECKING:  # torch takes seconds to import; it is imported only for tensors
    from torch import Tensor


def as_path(place: str | os.PathLike[str], what: str) -> Path:
    """A caller's argument as a path.

    Args:
        place: the argument.
        what: begins the error line, e.g. `Delta.load: folder`.

    Returns:
        The path.

    Raises:
        MetakeError: the argument is not a path, or is empty.
    """
    if not isinstance(place, str | os.PathLike):
        raise MetakeError(f"{what}: must be a path (str or Path), not {type(place).__name__}")
    if not os.fspath(place):
        raise MetakeError(f"{what}: is empty; give a path")
    return Path(place)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: `write` fills a temporary file in the same folder, which is then renamed.

    Args:
        path: the file.
        write: called with the path of the temporary file.

    Raises:
        MetakeError: the file cannot be written; an earlier file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # follows the umask, unlike the files of safetensors
        write(temporary)
        temporary.chmod(mode)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise MetakeError(
            f"{path}: cannot be written ({error}); free disk space, or choose another path"
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def expand(text: str | Path) -> Path:
    """A path with `~` expanded; unchanged if the user is unknown.

    Args:
        text: a path.

    Returns:
        The path.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Check before any work that a file, or a folder of files, can be written, without leaving a file.

    Args:
        path: the file or folder.
        folder: whether it is a folder of files.

    Raises:
        MetakeError: it cannot be written; the line gives the reason.
    """
    try:
        if path.exists() and path.is_dir() is not folder:
            raise MetakeError(f"{path}: is a {'file' if folder else 'folder'}; choose another place")
        place = path if folder else path.parent
        while not place.exists():
            if place.is_symlink():
                raise MetakeError(f"{place}: is a broken link; choose another place")
            place = place.parent
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"metake")
    except OSError as error:
        raise MetakeError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


MARKS = (  # byte-order marks; UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _decoded(path: Path) -> str:
    """Text of a file in the encoding of its byte-order mark; UTF-8 without one, in every locale."""
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    return path.read_text(encoding=encoding)


def _is_packed(path: Path) -> bool:
    """Whether a file is compressed (gzip, zip, xz, bzip2, zstd)."""
    with path.open("rb") as file:
        return file.read(4).startswith((b"\x1f\x8b", b"PK\x03\x04", b"\xfd7zX", b"BZh", b"\x28\xb5\x2f\xfd"))


def read_text(path: Path) -> str:
    """The text of a file, in UTF-8 or with a byte-order mark.

    Args:
        path: the file.

    Returns:
        The text, without a byte-order mark.

    Raises:
        MetakeError: the file is missing or not text.
    """
    try:
        return _decoded(path)
    except OSError as error:
        raise MetakeError(f"{path}: cannot be read as text ({error.strerror})") from error
    except UnicodeError as error:
        remedy = "unpack it" if _is_packed(path) else "save it as UTF-8"
        raise MetakeError(f"{path}: cannot be read as text ({error}); {remedy}") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 in every locale; lone surrogates are escaped.

    Args:
        path: the file.
        text: its content.
    """
    write_file(path, lambda place: place.write_text(text, encoding="utf-8", errors="backslashreplace"))


def as_json(content: Any) -> str:
    """JSON text; NaN and infinity become null.

    Args:
        content: plain values: dictionaries, lists, tuples, strings, numbers.

    Returns:
        The text, indented by 1.
    """
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Write `as_json(content)`.

    Args:
        path: the file.
        content: plain values.
    """
    write_text(path, as_json(content) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file, in UTF-8 or with a byte-order mark.

    Args:
        path: the file.

    Returns:
        Plain values.

    Raises:
        MetakeError: the file is missing or not JSON.
    """
    try:
        return parse_json(_decoded(path))
    except OSError as error:
        raise MetakeError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeError as error:
        raise MetakeError(f"{path}: not JSON ({error}); save it as UTF-8") from error
    except ValueError as error:
        raise MetakeError(f"{path}: not JSON ({error})") from error


def parse_json(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of a JSON text.

    Args:
        text: the text.
        pairs: makes an object of its keys and values; a `dict` by default.

    Returns:
        Plain values.

    Raises:
        ValueError: not JSON, or nested too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def digest(content: Any, tensors: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 of plain values (as JSON with sorted names) and of named tensors (dtype, shape and bytes of each).

    Args:
        content: plain values.
        tensors: name -> tensor of any shape, dtype and device.

    Returns:
        64 hexadecimal digits.
    """
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    if not tensors:
        return found.hexdigest()
    import torch

    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def as_plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Values after a round trip through JSON.

    Args:
        content: plain values.

    Returns:
        Values as `read_json` returns them.
    """
    plain: dict[str, Any] = json.loads(json.dumps(_finite(dict(content)), allow_nan=False))
    return plain


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, for `read_record`.

    Args:
        path: the file.
        content: plain values by name.
    """
    plain = as_plain(content)
    write_json(path, {"digest": digest(plain), **plain})


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read an object written by `write_record`.

    Args:
        path: the file.
        remedy: ends the error line.

    Returns:
        Plain values by name, without the digest.

    Raises:
        MetakeError: the file is missing, not JSON, without a digest, or changed since it was written.
    """
    try:
        content = read_json(path)
    except MetakeError as error:
        raise MetakeError(f"{error}; {remedy}") from error
    if not isinstance(content, dict) or "digest" not in content:
        raise MetakeError(f"{path}: has no digest (written by an earlier metake, or by hand); {remedy}")
    if content.pop("digest") != digest(content):
        raise MetakeError(f"{path}: damaged or changed by hand (its digest does not match); {remedy}")
    return content
