"""Statistics of keys from the cache on disk, or collected and cached."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from metake.errors import MetakeError
from metake.files import check_writable
from metake.folders import cache_folder
from metake.geometry.covariance import collect
from metake.geometry.statistics import Statistics, text_fingerprint
from metake.models.editable import EditableModel
from metake.models.load import as_editable
from metake.phases import note
from metake.planners.curvature import gradient_moments
from metake.presets import preset_name
from metake.statistics_sources import read_statistics
from metake.tensor_files import read_tensors, write_tensors
from metake.texts import default_text

GRADIENTS = "metake-gradient-moments-1"
TOKENS = 61_440  # of the shipped text, by default


def _cached(path: Path, model: EditableModel, layers: tuple[int, ...]) -> Statistics | None:
    """The statistics in a file of the cache, None if there are none that can be used."""
    try:
        if not path.exists():
            return None
        statistics = Statistics.load(path)
        statistics.check(model, layers, path)
    except (MetakeError, OSError) as error:
        warnings.warn(f"{error}: collected again", stacklevel=4)
        return None
    return statistics


def _collected(
    path: Path,
    model: EditableModel,
    tokenizer: Any,
    text: str,
    layers: tuple[int, ...],
    tokens: int | None,
    progress: bool,
) -> Statistics:
    """Statistics collected from a text, saved in a file of the cache if it can be written."""
    cacheable = True
    try:
        check_writable(path)
    except MetakeError as error:
        cacheable = False
        warnings.warn(
            f"statistics are not cached: {error}; set METAKE_CACHE to a writable folder", stacklevel=4
        )
    destination = f", once, for {path}" if cacheable else ""
    note(f"statistics: collecting from {tokens or 'all'} tokens of text{destination}")
    partial = path.with_suffix(".partial") if cacheable else None
    statistics = collect(model, tokenizer, text, layers, tokens=tokens, partial=partial, progress=progress)
    if cacheable:
        statistics.save(path)
    return statistics


def _key(model: EditableModel, layers: tuple[int, ...], text: str, tokens: int | None) -> str:
    """Name of statistics in the cache: their model up to the last layer, their text and their layers."""
    label = "-".join(str(layer) for layer in layers)
    return f"{model.fingerprint(layers[-1] + 1)}-{text_fingerprint(text)}-{tokens or 'all'}-{label}"


def _with_gradients(
    statistics: Statistics, model: EditableModel, layers: tuple[int, ...], text: str, tokens: int | None
) -> Statistics:
    """Statistics with the second moments of gradients, from the cache, or collected and cached."""
    key = _key(model, layers, text, tokens)
    path = cache_folder() / f"gradients-{model.fingerprint()}-{key}.safetensors"
    try:
        tensors, _ = read_tensors(path, GRADIENTS, "it is collected again")
        found = {layer: tensors[f"B.{layer}"] for layer in layers}
    except (MetakeError, OSError, KeyError):
        note(f"statistics: collecting gradients from {tokens or 'all'} tokens of text, once")
        found = gradient_moments(model, model.tokenizer, text, layers, tokens)
        with suppress(MetakeError, OSError):
            write_tensors(path, GRADIENTS, {f"B.{n}": moment for n, moment in found.items()}, {"text": key})
    return replace(statistics, gradients=found)


def statistics_for(
    model: EditableModel | nn.Module,
    tokenizer: Any = None,
    layers: Sequence[int] = (),
    *,
    text: str | None = None,
    tokens: int | None = None,
    source: Path | str | None = None,
    progress: bool = True,
    gradients: bool = False,
) -> Statistics:
    """Second moments C of the keys, from the cache, or collected and cached; or those that others have published.

    A damaged file is collected again. If the cache cannot be written, it is not used. Either is a warning.

    Args:
        model: the model.
        tokenizer: the model's tokenizer; not needed with the result of `load`.
        layers: layers whose C is needed.
        text: text to collect from; by default one that ships.
        tokens: number of tokens of the text, from its beginning.
        source: where to read them instead: a file of `metake stats`, a folder of memit's `.npz` files, AlphaEdit's
            `null_space_project.pt`, or a repository on the hub with memit's files.
        progress: show a progress bar.
        gradients: also the second moments of the gradients of the model's loss on the text, which is the one that ships for
            statistics of a source (CrispEdit).

    Returns:
        C of each layer, `d_k x d_k` in fp32, with its provenance.

    Raises:
        MetakeError: the text is too short, an argument has a wrong type, or the source is not of this model.

    Example:
        >>> import warnings
        >>> import metake as mk
        >>> with warnings.catch_warnings(action="ignore"):  # the text is short
        ...     statistics = mk.statistics_for(mk.load("demo"), layers=[1], text="The mill is dark. " * 400)
        >>> statistics[1].shape
        torch.Size([512, 512])
    """
    model = as_editable(model, tokenizer)
    tokenizer = model.tokenizer
    model.check_layers(layers)
    layers = tuple(layers)
    if source is not None and (text is not None or tokens is not None):
        raise MetakeError("statistics: give a text or a source, not both")
    if text is not None and not isinstance(text, str):
        raise MetakeError(f"statistics: text must be a text, not {type(text).__name__}; read the file first")
    if text is None:
        text = default_text(preset_name(model))
        tokens = tokens or TOKENS
    if source is None:
        statistics = _of_text(model, tokenizer, layers, text, tokens, progress)
    else:
        statistics = read_statistics(source, model, layers)
    return _with_gradients(statistics, model, layers, text, tokens) if gradients else statistics


def _of_text(
    model: EditableModel,
    tokenizer: Any,
    layers: tuple[int, ...],
    text: str,
    tokens: int | None,
    progress: bool,
) -> Statistics:
    """Statistics of a text, from the cache, or collected and cached."""
    key = _key(model, layers, text, tokens)
    path = cache_folder() / f"statistics-{key}.safetensors"
    statistics = _cached(path, model, layers)
    if statistics is None:
        statistics = _collected(path, model, tokenizer, text, layers, tokens, progress)
    if statistics.is_undersampled:
        warnings.warn(
            f"statistics from {statistics.provenance.tokens} tokens are too few for keys of {model.d_k} "
            "entries (use at least 20 tokens per entry): eta is overestimated; give more --text",
            stacklevel=3,
        )
    return statistics
