"""Files that are whole or absent: safetensors and JSON, written beside their place and renamed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metake.errors import MetakeError


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise MetakeError(
            f"{path}: cannot be written ({error}); free the disk or choose another place"
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def read_text(path: Path) -> str:
    """Raises `MetakeError` if the file is missing or not text."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise MetakeError(f"{path}: cannot be read as text ({error})") from error


def write_text(path: Path, text: str) -> None:
    _replace(path, lambda place: place.write_text(text))


def write_json(path: Path, content: Any) -> None:
    """JSON, which has no NaN and no infinity: what is not a number comes back as null."""
    write_text(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """Raises `MetakeError` if the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise MetakeError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise MetakeError(f"{path}: not JSON ({error})") from error


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    _replace(path, lambda place: save_file({k: t.contiguous() for k, t in tensors.items()}, place, meta))


def read_tensors(path: Path, kind: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file whose `format` is `kind`; `remedy` ends the error line."""
    if not path.is_file():
        raise MetakeError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise MetakeError(f"{path}: damaged or not safetensors; {remedy}") from error
    if meta.get("format") != kind:
        raise MetakeError(f"{path}: not a {kind} file; {remedy}")
    return tensors, meta
