"""Statistics of keys from the cache on disk, or collected and cached."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from metake.errors import MetakeError
from metake.files import check_writable, expand
from metake.geometry.covariance import collect
from metake.geometry.statistics import Statistics, text_fingerprint
from metake.models.architecture import Architecture
from metake.models.load import EditableModel, as_editable
from metake.phases import note
from metake.presets import preset_name
from metake.texts import default_text

TOKENS = 61_440  # of the shipped text, by default


def cache_folder() -> Path:
    """Where statistics are kept: `$METAKE_CACHE`, or `metake` in the user's cache folder; an empty value is none."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "metake"
    return expand(os.environ.get("METAKE_CACHE") or default)


def _cached(path: Path, arch: Architecture, layers: tuple[int, ...]) -> Statistics | None:
    """The statistics in a file of the cache, None if there are none that can be used."""
    try:
        if not path.exists():
            return None
        statistics = Statistics.load(path)
        statistics.check(arch, layers, path)
    except (MetakeError, OSError) as error:
        warnings.warn(f"{error}: collected again", stacklevel=3)
        return None
    return statistics


def statistics_for(
    model: EditableModel | nn.Module | Architecture,
    tokenizer: Any = None,
    layers: Sequence[int] = (),
    *,
    text: str | None = None,
    tokens: int | None = None,
    progress: bool = True,
) -> Statistics:
    """Statistics from the cache, or collected now and cached.

    A cached file that is damaged is made again, and a cache that cannot be written is not used; either is a note.

    Args:
        tokenizer: the model's; not needed with what `load` returns.
        layers: of which C is wanted.
        text: to collect from; a text that ships by default.
        tokens: so many of the text, from its beginning.

    Raises:
        MetakeError: the text is too short, or an argument is something else.
    """
    loaded = as_editable(model, tokenizer)
    arch, tokenizer = loaded.arch, loaded.tokenizer
    arch.check_layers(layers)
    layers = tuple(layers)
    if text is not None and not isinstance(text, str):
        raise MetakeError(f"statistics: text must be a text, not {type(text).__name__}; read the file first")
    if text is None:
        text = default_text(preset_name(arch))
        tokens = tokens or TOKENS
    label = "-".join(str(layer) for layer in layers)
    key = f"{arch.fingerprint(layers[-1] + 1)}-{text_fingerprint(text)}-{tokens or 'all'}-{label}"
    path = cache_folder() / f"statistics-{key}.safetensors"
    statistics = _cached(path, arch, layers)
    if statistics is None:
        keep = True
        try:
            check_writable(path)
        except MetakeError as error:
            keep = False
            warnings.warn(f"statistics are not kept: {error}, by METAKE_CACHE", stacklevel=2)
        kept = f", once, for {path}" if keep else ""
        note(f"statistics: collecting from {tokens or 'all'} tokens of text{kept}")
        statistics = collect(
            arch,
            tokenizer,
            text,
            layers,
            tokens=tokens,
            partial=path.with_suffix(".partial") if keep else None,
            progress=progress,
        )
        if keep:
            statistics.save(path)
    if statistics.thin:
        warnings.warn(
            f"statistics from {statistics.provenance.tokens} tokens are thin for keys of {arch.d_k} "
            "entries (want 20 tokens per entry): eta will look higher than it is; give more --text",
            stacklevel=2,
        )
    return statistics
