"""AlphaEdit's null-space projections: `null_space_project.pt`, a tensor of `layers x d_k x d_k`.

A projection P on the null space is read as the second moment `I - P`, whose eigenvalues are 0 in the null space and 1
elsewhere. It is of use for the projected geometry alone.

Reference: `experiments/evaluate.py` of jianghoucheng/AlphaEdit (`get_project`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.agreement import check_projection, own_keys
from metake.geometry.statistics import PROJECTION, Provenance, Statistics
from metake.models.editable import EditableModel

REMEDY = "download it again, or run metake stats"
PROBES = 4  # random vectors that a projection is applied to twice
ROUNDING = 1e-2  # relative; an SVD in fp32 of a matrix with a condition number of 1e8


def read_projections(path: Path, model: EditableModel, layers: tuple[int, ...]) -> Statistics:
    """Statistics of a file of projections.

    Args:
        path: the file; its projections are those of the edited layers, ascending.
        model: the model with its tokenizer.
        layers: the edited layers.

    Returns:
        `I - P` per layer, for the projected geometry.

    Raises:
        MetakeError: the file holds something else, or projections of other layers or of another model.
    """
    model.check_layers(layers)
    stacked = _tensor(path)
    if stacked.ndim != 3 or stacked.shape[1] != stacked.shape[2] or not stacked.is_floating_point():
        raise MetakeError(
            f"{path}: must be a tensor of layers x d_k x d_k, is {tuple(stacked.shape)}; give AlphaEdit's null_space_project.pt"
        )
    if len(stacked) != len(layers):
        raise MetakeError(
            f"{path}: holds {len(stacked)} projections, for {len(layers)} layers {list(layers)}; give the --layers "
            "that they were computed for"
        )
    if stacked.shape[1] != model.d_k:
        raise MetakeError(
            f"{path}: is of another model: keys of {stacked.shape[1]} entries, this model's have {model.d_k}; give the "
            "file of this model"
        )
    keys = own_keys(model, layers)
    moments = {}
    for layer, projection in zip(layers, stacked, strict=True):
        where = f"{path}: layer {layer}"
        _check_projector(where, projection)
        check_projection(where, projection, keys[layer])
        moments[layer] = (torch.eye(model.d_k) - projection.float()).contiguous()
    source = f"null-space projections, {path.name}"
    provenance = Provenance.from_elsewhere(model, moments, source, 0, PROJECTION)
    return Statistics(moments, provenance)


def _tensor(path: Path) -> Tensor:
    if not path.is_file():
        raise MetakeError(f"{path}: no such file; {REMEDY}")
    if not zipfile.is_zipfile(path):
        raise MetakeError(f"{path}: is no file of torch.save; {REMEDY}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises whatever its content leads it to
        raise MetakeError(
            f"{path}: holds pickled objects, which are not read, or is damaged; {REMEDY}"
        ) from error
    if not isinstance(found, Tensor):
        raise MetakeError(f"{path}: must be a tensor, is {type(found).__name__}; {REMEDY}")
    return found


def _check_projector(where: str, projection: Tensor) -> None:
    """Refuse a matrix that is not an orthogonal projection; a full product would take `d_k^3`."""
    if not bool(torch.isfinite(projection).all()):
        raise MetakeError(f"{where}: holds NaN or infinity; {REMEDY}")
    probes = torch.randn(len(projection), PROBES, generator=torch.Generator().manual_seed(0))
    once = projection.float() @ probes
    twice, transposed = projection.float() @ once, projection.float().T @ probes
    off = max(float((once - other).norm() / probes.norm()) for other in (twice, transposed))
    if not off <= ROUNDING:
        raise MetakeError(
            f"{where}: is no orthogonal projection (P^2 or P^T differs from P by {off:.1g}); {REMEDY}"
        )
    if not float(projection.trace()) >= 1 - ROUNDING:
        raise MetakeError(f"{where}: leaves no direction; {REMEDY}")
