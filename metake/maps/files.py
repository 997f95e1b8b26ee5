"""Files of fitted maps: one safetensors file per method in a folder, for one model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.components import Component
from metake.errors import MetakeError
from metake.maps.gradient_map import GradientMap, MapSpec
from metake.maps.networks import Network
from metake.maps.updates import Update
from metake.models.editable import EditableModel
from metake.planners.normalized_gradient import Moments
from metake.shipped import DEMOS
from metake.tensor_files import read_tensors, write_tensors

FORMAT = "metake-map-1"
MOMENTS = "moments"


def map_file(folder: Path, method: str) -> Path:
    """File of a method's map.

    Args:
        folder: folder of maps.
        method: row of the table of methods.

    Returns:
        The path.
    """
    return folder / f"{method}.safetensors"


def described(spec: MapSpec) -> dict[str, Any]:
    """What a map is made of, as plain values.

    Args:
        spec: what it is made of.

    Returns:
        Plain values by name; the precision of the solves can be changed later.
    """
    return {
        "layers": list(spec.layers),
        "network": spec.network.model_dump(mode="json"),
        "update": spec.update.model_dump(mode="json"),
        "map_lr": spec.lr,
        "reduction": spec.reduction,
        "end": spec.end,
    }


def tensors_of(fitted: GradientMap) -> dict[str, Tensor]:
    """Parameters and moments of a map by name.

    Args:
        fitted: the map.

    Returns:
        Name -> tensor.
    """
    tensors = {name: tensor.detach() for name, tensor in fitted.state_dict().items()}
    return tensors if fitted.moments is None else {**tensors, MOMENTS: fitted.moments.pack()}


def fill(fitted: GradientMap, tensors: dict[str, Tensor]) -> None:
    """Fill a map with saved tensors. Tensors of another map raise a `RuntimeError`.

    Args:
        fitted: the map.
        tensors: name -> tensor.
    """
    moments = tensors.get(MOMENTS)
    fitted.load_state_dict({name: tensor for name, tensor in tensors.items() if name != MOMENTS})
    fitted.moments = None if moments is None else Moments.unpack(moments)


def model_states(model: EditableModel) -> list[str]:
    """Fingerprints of a model's weights, as they are and rounded to half precision.

    Args:
        model: the model.

    Returns:
        The fingerprints.
    """
    found = [model.fingerprint(dtype=dtype) for dtype in (None, torch.bfloat16, torch.float16)]
    return list(dict.fromkeys(found))


def save_map(path: Path, fitted: GradientMap, model: EditableModel, method: str) -> None:
    """Write a map; equal maps give equal bytes.

    Args:
        path: the file.
        fitted: the map.
        model: the model that it was fitted for, unedited.
        method: row of the table of methods.
    """
    meta = {"method": method, "name": model.name, "models": model_states(model), **described(fitted.spec)}
    write_tensors(path, FORMAT, tensors_of(fitted), meta)


def read_meta(path: Path, remedy: str) -> dict[str, Any]:
    """What a file of a map says of it, without its tensors' values.

    Args:
        path: the file.
        remedy: ends the error line.

    Returns:
        Plain values by name.
    """
    return read_tensors(path, FORMAT, remedy)[1]


def _component(cls: type[Component], meta: dict[str, Any], name: str, path: Path, remedy: str) -> Any:
    """Component of a map from the plain values in its file."""
    try:
        return cls.model_validate(meta[name])
    except MetakeError as error:
        said = str(error).removeprefix("settings: ").removeprefix(f"{name}: ")
        raise MetakeError(f"{path}: {name}: {said}; {remedy}") from error


def load_map(path: Path, spec: MapSpec, model: EditableModel, method: str) -> GradientMap:
    """Read a map.

    Args:
        path: the file.
        spec: what the method is made of; sizes of the network and the first step size are those of the file.
        model: the model, unedited.
        method: row of the table of methods.

    Returns:
        The map, on the device of the model.

    Raises:
        MetakeError: there is no file, it is damaged, or it was fitted for another model, method or other layers.
    """
    data = "" if model.name in DEMOS else " --data FILE"
    remedy = f"fit one: metake fit --method {method} --model {model.name}{data} --out {path.parent}"
    if path.parent.is_file():
        raise MetakeError(f"map: {path.parent}: is a file; give the folder that metake fit wrote")
    tensors, meta = read_tensors(path, FORMAT, remedy)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise MetakeError(f"{path}: {name} is not finite; {remedy}")
    try:
        if model.fingerprint() not in meta["models"]:
            raise MetakeError(
                f"{path}: fitted for another model or state ({meta['name']}), not for this {model.name}; {remedy}"
            )
        network = _component(Network, meta, "network", path, remedy)
        update = _component(Update, meta, "update", path, remedy)
        if not math.isfinite(lr := float(meta["map_lr"])) or lr <= 0:
            raise MetakeError(f"{path}: map_lr: must be above 0, is {lr:g}; {remedy}")
        pairs = {
            "layers": (meta["layers"], list(spec.layers)),
            "network": (network.kind, spec.network.kind),
            "update": (update.kind, spec.update.kind),
            "reduction": (meta["reduction"], spec.reduction),
            "end": (meta.get("end", "none"), spec.end),
        }
        for name, (found, wanted) in pairs.items():
            if found != wanted:
                raise MetakeError(f"{path}: fitted with {name} {found}, not {wanted}; set it so, or {remedy}")
        made = replace(spec, network=network, update=update, lr=lr)
        fitted = GradientMap(made, model.d_k, model.d_v)
        fill(fitted, tensors)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise MetakeError(f"{path}: the map does not fit the shape of this model; {remedy}") from error
    return fitted.requires_grad_(False).to(model.device)
