"""Settings and statistics that need no flag on the models that have a preset."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from metake.data.world import World
from metake.errors import MetakeError
from metake.extras import require
from metake.files import as_path, check_writable, expand, read_json, read_text
from metake.geometry.covariance import Statistics, collect, text_fingerprint
from metake.hparams import Settings, check_fields, make_settings
from metake.methods import METHODS, find_method
from metake.models.architecture import Architecture
from metake.models.load import ASSETS, DEMOS, Loaded, architecture_of, as_loaded
from metake.names import unknown_name
from metake.phases import note
from metake.solvers.allocation import ALLOCATIONS

PRESETS = ASSETS / "presets"
TEXT = ASSETS / "text.txt"  # both written by experiments/sample_text.py
HELD_OUT = ASSETS / "held_out.txt"
TOKENS = 61_440  # of the shipped text, by default


def cache_folder() -> Path:
    """Where statistics are kept: `$METAKE_CACHE`, or `metake` in the user's cache folder; an empty value is none."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "metake"
    return expand(os.environ.get("METAKE_CACHE") or default)


def default_layers(count: int) -> tuple[int, ...]:
    """For a model without a preset: five layers (three in a small model) in its lower third."""
    if count < 3:
        return tuple(range(count))
    first = max(1, round(count * 0.14)) if count > 3 else 0
    return tuple(range(first, min(count, first + (5 if count >= 24 else 3))))


def short_name(name: str) -> str:
    """Of a model, without the hub's owner or the folder's place: what presets are named by."""
    return name.rstrip("/").split("/")[-1].lower()


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    """Model name -> its preset."""
    return {name: content for names, content in _files() for name in names}


@cache
def _files() -> list[tuple[list[str], dict[str, Any]]]:
    """Names and content of every preset that ships."""
    files = [read_json(path) for path in sorted(PRESETS.glob("*.json"))]
    return [(content["names"], content) for content in files]


def preset_name(arch: Architecture) -> str:
    """The name of the preset that ships for a model, whatever its folder is called; empty if there is none.

    A preset states an architecture. Where other models share it, it also states the fingerprints of the embeddings,
    which an edit leaves as they are (of the weights in fp32, bf16 and fp16), or names on the hub.
    """
    config, embedding = getattr(arch.model, "config", None), arch.model.get_input_embeddings()  # type: ignore[operator]
    found = {
        "type": getattr(config, "model_type", ""), "layers": len(arch), "d_v": arch.d_v, "d_k": arch.d_k,
        "vocabulary": embedding.weight.shape[0],
    }  # fmt: skip
    for name, stated in ((names[0], preset["model"]) for names, preset in _files()):
        if any(stated[field] != value for field, value in found.items()):
            continue
        one_of_many = "embeddings" in stated
        if not one_of_many or getattr(arch.model, "name_or_path", "") in stated.get("hub", ()):
            return name
        if arch.fingerprint(0) in stated["embeddings"]:
            return name
    return ""


def preset_of(which: str | Path) -> dict[str, Any]:
    """The preset that ships under a name (empty if there is none), or that of a file.

    Args:
        which: a name, or the path of a file; a text that ends in `.json` is a path.

    Raises:
        MetakeError: the file cannot be read, or is no preset.
    """
    if isinstance(which, str) and not which.endswith(".json"):
        return _shipped().get(short_name(which), {})
    content = read_json(as_path(which, "preset"))
    parts = ("common", "geometries", "methods")
    if (
        not isinstance(content, dict)
        or not set(content) <= {"names", "model", "searched", *parts}
        or not all(isinstance(content.get(part, {}), dict) for part in parts)
    ):
        raise MetakeError(
            f"{which}: a preset holds names, common, geometries and methods; experiments/tune.py writes one"
        )
    fields = {
        "common": content.get("common", {}),
        **{f"{part}.{name}": choice for part in parts[1:] for name, choice in content.get(part, {}).items()},
    }
    known = {"geometries": {row.geometry for row in METHODS.values()}, "methods": set(METHODS)}
    for part, names in known.items():
        strange = [name for name in content.get(part, {}) if name.partition("@")[0] not in names]
        if strange:
            raise unknown_name(f"{which}: {part}", strange[0], sorted(names))
    for where, choice in fields.items():
        given = choice if isinstance(choice, dict) else [str(choice)]
        unknown = [name for name in given if name not in Settings.model_fields]
        if unknown:
            raise unknown_name(f"{which}: {where}", unknown[0], Settings.model_fields)
    return content


def check_allocation(name: str) -> None:
    """Raises `MetakeError` if an allocation is not in the table."""
    if name not in ALLOCATIONS:
        raise unknown_name("settings: allocation", name, ALLOCATIONS)


def check_changes(changes: Mapping[str, Any]) -> None:
    """Check changed settings one by one, before a model is loaded.

    Raises:
        MetakeError: unknown setting or a value out of range; the line names it.
    """
    check_fields(changes)
    if "allocation" in changes:
        check_allocation(changes["allocation"])


def settings_for(
    model: Loaded | nn.Module | Architecture,
    method: str,
    *,
    name: str | Path | None = None,
    **overrides: Any,
) -> Settings:
    """Defaults, then the model's preset, then its parts for the geometry and the method, then `overrides`.

    A method without a part of its own takes that of the method it is like; one with a label, that of its row.

    Args:
        name: of another preset than the model's, or a file that holds one.

    Raises:
        MetakeError: unknown method or setting, a layer that the model does not have, or no preset in the file.
    """
    arch, row = architecture_of(model), find_method(method)
    preset = preset_of(preset_name(arch) if name is None else name)
    fields: dict[str, Any] = {"layers": default_layers(len(arch)), **preset.get("common", {})}
    fields |= preset.get("geometries", {}).get(row.geometry, {})
    own = preset.get("methods", {})
    fields |= next((own[name] for name in (method, row.name, row.like) if name in own), {})
    settings = make_settings({**row.choices, **fields, **overrides})
    check_allocation(settings.allocation)
    arch.check_layers(settings.layers)
    return settings


def default_text(name: str) -> str:
    """The world's own text for the demo models, the shipped English text for all others.

    Args:
        name: of the model's preset, as `preset_name` gives it.
    """
    if name in DEMOS:
        return World().text(6000, seed=7)
    if not TEXT.is_file():
        raise MetakeError("statistics: no text ships with this installation; give one with --text FILE")
    return read_text(TEXT)


def held_out_text(name: str) -> str:
    """Text for perplexity that `default_text` does not hold."""
    if name in DEMOS:
        return World().text(400, seed=11)
    if not HELD_OUT.is_file():
        raise MetakeError("perplexity: no text ships with this installation; give one with --held-out FILE")
    return read_text(HELD_OUT)


def stream_dataset(name: str) -> Iterator[str]:
    """Documents of a dataset on the hub, `NAME` or `NAME:CONFIG`, streamed.

    Raises:
        MetakeError: the package is missing or the dataset cannot be opened.
    """
    require("hub", "datasets", what="--dataset")
    import datasets

    path, _, config = name.partition(":")
    try:
        stream = datasets.load_dataset(path, config or None, split="train", streaming=True)
        column = next(c for c in ("text", "content", "document") if c in next(iter(stream)))
    except Exception as error:  # the loaders raise whatever their formats raise
        reason = " ".join(str(error).split())[:200]
        raise MetakeError(
            f"--dataset {name}: cannot be streamed ({type(error).__name__}: {reason})"
        ) from error
    return (str(entry[column]) for entry in stream)


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
    model: Loaded | nn.Module | Architecture,
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
    loaded = as_loaded(model, tokenizer)
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
            arch, tokenizer, text, layers, tokens=tokens,
            partial=path.with_suffix(".partial") if keep else None, progress=progress,
        )  # fmt: skip
        if keep:
            statistics.save(path)
    if statistics.thin:
        warnings.warn(
            f"statistics from {statistics.provenance.tokens} tokens are thin for keys of {arch.d_k} "
            "entries (want 20 tokens per entry): eta will look higher than it is; give more --text",
            stacklevel=2,
        )
    return statistics
