"""Safetensors with plain values and a digest, written atomically and checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

import metake
from metake.errors import MetakeError
from metake.files import as_plain, digest, write_file

if TYPE_CHECKING:  # torch takes seconds to import; it is imported only for tensors
    from torch import Tensor, dtype


def dtype_name(kind: dtype) -> str:
    """Name of a dtype without `torch.`.

    Args:
        kind: the dtype.

    Returns:
        The name, e.g. `float32`.
    """
    return str(kind).removeprefix("torch.")


def write_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Safetensors with plain values; equal content gives equal bytes.

    Args:
        path: the file.
        kind: name and version of the format.
        tensors: name -> tensor of any shape and dtype.
        meta: stored as one JSON entry of the file's metadata, because safetensors writes entries in
            arbitrary order.
    """
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(path, lambda place: save_file(whole, place, {"metake": tensor_header(kind, whole, meta)}))


def tensor_header(kind: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Plain values with the digest of a file, for the entry `metake` of its metadata.

    Args:
        kind: name and version of the format.
        tensors: tensors of the file.
        meta: plain values by name.

    Returns:
        JSON with sorted names.
    """
    plain = as_plain({"format": kind, "version": metake.__version__, **meta})
    return json.dumps({"digest": digest(plain, tensors), **plain}, sort_keys=True)


def kind_of(path: Path) -> str:
    """The `kind` of a file that `write_tensors` wrote; empty for any other file. Reads the header alone.

    Args:
        path: the file.

    Returns:
        Name and version of the format.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {})["metake"])
        return str(meta["format"])
    except Exception:  # the reader raises whatever a header leads it to
        return ""


def open_tensors(path: Path, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of any safetensors file.

    Args:
        path: the file.
        remedy: ends the error line.

    Returns:
        Name -> tensor on the CPU, and the file's metadata.

    Raises:
        MetakeError: the file is missing or not safetensors.
    """
    if not path.is_file():
        raise MetakeError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except Exception as error:  # the reader raises whatever a header leads it to
        raise MetakeError(f"{path}: damaged or not safetensors; {remedy}") from error


def read_tensors(path: Path, kind: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and plain values written by `write_tensors`.

    Args:
        path: the file.
        kind: name and version of the format.
        remedy: ends the error line.

    Returns:
        Name -> tensor on the CPU, and plain values by name.

    Raises:
        MetakeError: the file is missing, not safetensors, of another kind, or changed since it was written.
    """
    tensors, header = open_tensors(path, remedy)
    return tensors, checked_meta(path, header, tensors, kind, remedy)


def checked_meta(
    path: Path, header: Mapping[str, str], tensors: Mapping[str, Tensor], kind: str, remedy: str
) -> dict[str, Any]:
    """Plain values that `tensor_header` put into a file's metadata.

    Args:
        path: the file.
        header: metadata of the file.
        tensors: its tensors.
        kind: name and version of the format.
        remedy: ends the error line.

    Returns:
        Plain values by name.

    Raises:
        MetakeError: the file is of another kind, or changed since it was written.
    """
    try:
        meta = json.loads(header.get("metake", "null"))
    except ValueError as error:
        raise MetakeError(f"{path}: damaged or not safetensors; {remedy}") from error
    if not isinstance(meta, dict) or meta.get("format") != kind:
        found = header.get("format", "")
        if found.startswith("metake-"):
            raise MetakeError(f"{path}: {found} is a format of an earlier metake, without a digest; {remedy}")
        raise MetakeError(f"{path}: not a {kind} file; {remedy}")
    if meta.pop("digest", None) != digest(meta, tensors):
        raise MetakeError(f"{path}: damaged (its digest does not match); {remedy}")
    return meta
