"""Statistics from wherever they are: a file of `metake stats`, memit's `.npz` files, projections, the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metake.errors import MetakeError
from metake.files import expand
from metake.geometry.memit_files import find_files, read_memit_files
from metake.geometry.projection_files import read_projections
from metake.geometry.statistics import Statistics
from metake.models.editable import EditableModel

SAMPLES = 100_000  # documents in the names of the files that are published


@dataclass(frozen=True)
class PublicStatistics:
    """Second moments of a model on the hub, in memit's files.

    Attributes:
        repository: its name.
        model: the model they were collected from.
        stated: where the repository is stated.
    """

    repository: str
    model: str
    stated: str = "README of XiaojieGu/UltraEdit"


PUBLIC = (
    PublicStatistics("XiaojieGu/gpt-j-6b_CovarianceMatrix", "EleutherAI/gpt-j-6b"),
    PublicStatistics("XiaojieGu/Qwen2.5-7B-Instruct_CovarianceMatrix", "Qwen/Qwen2.5-7B-Instruct"),
    PublicStatistics("XiaojieGu/Mistral-7B-v0.3_CovarianceMatrix", "mistralai/Mistral-7B-v0.3"),
    PublicStatistics("XiaojieGu/Llama-3-8B-Instruct_CovarianceMatrix", "meta-llama/Meta-Llama-3-8B-Instruct"),
    PublicStatistics("XiaojieGu/Llama-2-7b-hf_CovarianceMatrix", "meta-llama/Llama-2-7b-hf"),
)


def read_statistics(source: Path | str, model: EditableModel, layers: tuple[int, ...] = ()) -> Statistics:
    """Statistics of a model, checked against it.

    Args:
        source: a file of `metake stats`; one or a folder of memit's `.npz` files; AlphaEdit's `.pt` file of projections; or
            the name of a repository on the hub with memit's files.
        model: the model with its tokenizer, unedited.
        layers: layers that are needed; all that there are if empty. Needed for projections and for the hub.

    Returns:
        The statistics.

    Raises:
        MetakeError: nothing of these, or statistics of another model, or without a layer that is needed.
    """
    path = expand(str(source))
    if path.is_dir():
        if not (files := find_files(path)):
            raise MetakeError(
                f"{path}: holds no statistics; memit's files are named {model.module_name('N')}_float32_mom2_100000.npz"
            )
        return read_memit_files(files, model, layers)
    if path.suffix == ".npz" and path.is_file():
        return read_memit_files([path], model, layers)
    if path.suffix == ".pt" and path.is_file():
        return read_projections(path, model, layers)
    if not path.exists() and _is_repository(str(source)):
        return _from_hub(str(source), model, layers)
    statistics = Statistics.load(path)
    statistics.check(model, layers or statistics.provenance.layers, path)
    return statistics


def _is_repository(text: str) -> bool:
    """Whether a text has the form of a repository's name on the hub."""
    owner, _, name = text.partition("/")
    if text.endswith((".npz", ".pt", ".safetensors")):
        return False
    return (
        bool(owner) and bool(name) and "/" not in name and owner[0] not in ".~" and not Path(owner).exists()
    )


def _from_hub(repository: str, model: EditableModel, layers: tuple[int, ...]) -> Statistics:
    """Statistics of a repository; each file is downloaded once, into the cache of the hub."""
    from transformers.utils.hub import cached_file

    if not layers:
        raise MetakeError(f"{repository}: --layers is missing; each layer is a file of its own")
    files = []
    for layer in layers:
        name = f"{model.module_name(layer)}_float32_mom2_{SAMPLES}.npz"
        try:
            files.append(Path(str(cached_file(repository, name))))
        except Exception as error:  # the hub's client raises whatever its libraries raise
            reason = " ".join(str(error).split())[:160]
            raise MetakeError(
                f"{repository}: {name} cannot be loaded from the hub ({type(error).__name__}: {reason}); download it "
                "elsewhere and give its folder"
            ) from error
    return read_memit_files(files, model, layers, source=repository)
