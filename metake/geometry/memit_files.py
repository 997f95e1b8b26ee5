"""Second moments in the files of memit and ROME: `transformer.h.17.mlp.c_proj_float32_mom2_100000.npz`.

A file holds the sum of `k k^T` over the tokens of some documents (`mom2.mom2`), their number (`mom2.count`), and the
number of documents (`sample_size`). The name holds the module, the dtype of the sums and the number of documents;
the folder holds the name of the data set (`wikipedia_stats`).

Reference: `util/runningstats.py` and `rome/layer_stats.py` of kmeng01/memit.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.agreement import check_moment, own_keys
from metake.geometry.statistics import Provenance, Statistics
from metake.models.editable import EditableModel

NAME = re.compile(r"(?P<module>.+)_b?float\d+_(?P<rest>[^.]*mom2[^.]*)\.npz")
REMEDY = "download it again, or run metake stats"
FLOATS = ("f2", "f4", "f8")
MOST = 2**63  # tokens or documents
ASYMMETRY = 1e-3  # of the largest entry; sums in half precision differ by rounding


@dataclass(frozen=True)
class Moment:
    """Content of a file.

    Attributes:
        second_moment: C = mom2 / count, `d_k x d_k`, fp32.
        tokens: `mom2.count`.
        documents: `sample_size`; None if the file has none.
    """

    second_moment: Tensor
    tokens: int
    documents: int | None


def module_of(path: Path) -> str:
    """Module that a file's name states; empty for a name of another form.

    Args:
        path: the file.

    Returns:
        E.g. `transformer.h.17.mlp.c_proj`.
    """
    found = NAME.fullmatch(path.name)
    return found["module"] if found else ""


def find_files(folder: Path) -> list[Path]:
    """Files of second moments in a folder, or in the one folder below it that has some.

    Args:
        folder: e.g. `data/stats/gpt2-xl/wikipedia_stats`, or one above it.

    Returns:
        The files, sorted; none if there are none.

    Raises:
        MetakeError: several folders below have some.
    """
    found = sorted(path for path in folder.rglob("*.npz") if module_of(path))
    places = sorted({path.parent for path in found})
    if len(places) > 1:
        raise MetakeError(
            f"{folder}: several folders hold statistics; give one of them, e.g. {places[0]} or {places[1]}"
        )
    return found


def read_moment(path: Path) -> Moment:
    """Content of a file, checked.

    Args:
        path: the file.

    Returns:
        C and the numbers of tokens and documents.

    Raises:
        MetakeError: the file is missing, damaged, holds pickled objects or no second moment, or its numbers do not fit.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        what = "is no .npz file" if path.is_file() else "no such file"
        raise MetakeError(f"{path}: {what}; {REMEDY}")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in ("mom2.count", "mom2.mom2") if key not in file]
            if missing:
                raise MetakeError(f"{path}: holds no {missing[0]}; give a file of second moments (mom2)")
            total, count = file["mom2.mom2"], file["mom2.count"]
            documents = file.get("sample_size", None)
    except MetakeError:
        raise
    except Exception as error:  # the reader raises whatever a member leads it to
        pickled = "pickle" in str(error)
        what = "holds pickled objects, which are not read" if pickled else "is damaged"
        raise MetakeError(f"{path}: {what}; {REMEDY}") from error
    if (
        total.ndim != 2
        or total.shape[0] != total.shape[1]
        or not total.size
        or total.dtype.str[1:] not in FLOATS
    ):
        is_now = f"{total.shape} of {total.dtype}"
        raise MetakeError(f"{path}: mom2.mom2: must be a square matrix of floats, is {is_now}; {REMEDY}")
    tokens, samples = _whole(path, "mom2.count", count), None
    if documents is not None and not _is_null(documents):
        samples = _whole(path, "sample_size", documents)
    _check_numbers(path, tokens, samples)
    return Moment(_second_moment(path, total, tokens), tokens, samples)


def _is_null(value: np.ndarray) -> bool:
    """Whether a value is the NaN that stands for None."""
    return value.ndim == 0 and value.dtype.kind == "f" and bool(np.isnan(value))


def _whole(path: Path, name: str, value: np.ndarray) -> int:
    if value.shape != () or value.dtype.kind not in "iuf" or not (1 <= value < MOST and value % 1 == 0):
        shown = " ".join(str(value).split())[:40]
        raise MetakeError(f"{path}: {name}: must be a whole number from 1 on, is {shown}; {REMEDY}")
    return int(value)


def _check_numbers(path: Path, tokens: int, documents: int | None) -> None:
    if documents is None:
        return
    if tokens < documents:
        raise MetakeError(f"{path}: mom2.count: {tokens} tokens of {documents} documents; {REMEDY}")
    found = NAME.fullmatch(path.name)
    stated = re.search(r"_(\d+)$", found["rest"]) if found else None
    if stated is not None and int(stated[1]) != documents:
        raise MetakeError(f"{path}: sample_size: is {documents}, the file's name says {stated[1]}; {REMEDY}")


def _second_moment(path: Path, total: np.ndarray, tokens: int) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(total, dtype=total.dtype.newbyteorder("=")))
    if not bool(torch.isfinite(found).all()):
        raise MetakeError(f"{path}: mom2.mom2: holds NaN or infinity; {REMEDY}")
    largest = float(found.abs().max())
    if largest == 0 or bool((found.diagonal() < 0).any()):
        raise MetakeError(f"{path}: mom2.mom2: is 0, or has a negative diagonal; {REMEDY}")
    if float((found - found.T).abs().max()) > ASYMMETRY * largest:
        raise MetakeError(f"{path}: mom2.mom2: is not symmetric; {REMEDY}")
    root = found.double().diagonal().sqrt()
    if bool((found.double().abs() > root[:, None] * root * (1 + ASYMMETRY) + ASYMMETRY * largest).any()):
        raise MetakeError(
            f"{path}: mom2.mom2: is no second moment: an entry is above the geometric mean of its diagonal entries; {REMEDY}"
        )
    return (found.double() / tokens).float()


def read_memit_files(
    files: list[Path], model: EditableModel, layers: tuple[int, ...], source: str = ""
) -> Statistics:
    """Statistics of the files of a model's layers.

    Args:
        files: the files, at least those of `layers`; their names state their modules.
        model: the model with its tokenizer.
        layers: layers that are read; all that have a file if empty.
        source: whose they are; by default the folders of the files.

    Returns:
        The statistics, for the model as it is.

    Raises:
        MetakeError: a file of another model or layer, or damaged, or none of a layer that is needed.
    """
    by_layer = _by_layer(files, model)
    layers = layers or tuple(sorted(by_layer))
    model.check_layers(layers)
    if missing := sorted(set(layers) - set(by_layer)):
        raise MetakeError(
            f"{files[0].parent}: no file for layer {missing[0]} (has {sorted(by_layer)}); choose other --layers, or "
            "run metake stats"
        )
    found = {layer: _of_width(by_layer[layer], model.d_k) for layer in layers}
    keys = own_keys(model, layers)
    for layer, moment in found.items():
        check_moment(str(by_layer[layer]), moment.second_moment, keys[layer])
    source = source or "/".join(by_layer[layers[0]].resolve().parent.parts[-2:])
    documents = [moment.documents for moment in found.values() if moment.documents is not None]
    said = f"{source}, {min(documents)} documents" if documents else source
    moments = {layer: moment.second_moment for layer, moment in found.items()}
    tokens = min(moment.tokens for moment in found.values())
    return Statistics(moments, Provenance.from_elsewhere(model, moments, said, tokens))


def _by_layer(files: list[Path], model: EditableModel) -> dict[int, Path]:
    """Layer -> its file, by the modules that the files' names state."""
    named = {model.module_name(layer): layer for layer in range(len(model))}
    found: dict[int, Path] = {}
    for path in files:
        module = module_of(path)
        if module not in named:
            what = f"is of the module {module}" if module else "its name states no module"
            raise MetakeError(
                f"{path}: {what}; a file of this model is named {model.module_name('N')}_float32_mom2_100000.npz"
            )
        if named[module] in found:
            raise MetakeError(f"{path}: a second file for layer {named[module]}; keep one of them")
        found[named[module]] = path
    return found


def _of_width(path: Path, d_k: int) -> Moment:
    moment = read_moment(path)
    if len(moment.second_moment) != d_k:
        raise MetakeError(
            f"{path}: is of another model: its keys have {len(moment.second_moment)} entries, this model's {d_k}; give "
            "the file of this model"
        )
    return moment
