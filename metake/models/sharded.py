"""Models whose weights are divided over processes by PyTorch's FSDP2.

Every process holds a share of each weight, reads only that share from the files, and gathers a block while the block
runs. The processes of a model run the same passes in the same order.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metake.errors import MetakeError
from metake.models.modules import DESCRIBED, FAMILIES, ModuleMap
from metake.processes import is_first, share_models, wait_for_all

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MARK = "_metake_sharded"


def is_sharded(model: nn.Module) -> bool:
    """Whether a model was loaded by `load_sharded`.

    Args:
        model: the model.

    Returns:
        False for other sharded models.
    """
    return bool(getattr(model, MARK, False))


def gathered(weight: Tensor) -> Tensor:
    """The whole of a divided tensor, a copy in every process; another tensor is returned unchanged.

    Args:
        weight: a parameter.

    Returns:
        A plain tensor.
    """
    whole: Any = getattr(weight, "full_tensor", None)
    return weight if whole is None else whole()


@torch.no_grad()
def assign(weight: Tensor, values: Tensor) -> None:
    """Write values into a parameter; each process writes its share of a divided one.

    Args:
        weight: a parameter.
        values: plain tensor of its shape.
    """
    divided: Any = weight
    if hasattr(divided, "full_tensor"):
        local = divided.to_local()
        local.copy_(values[_share(divided)])
    else:
        weight.copy_(values)


def _share(divided: Any) -> tuple[slice, ...]:
    """The part of a divided tensor that this process holds."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(
        divided.shape, divided.device_mesh, divided.placements
    )
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))


def load_sharded(name: str, place: str, device: str, dtype: torch.dtype, modules: ModuleMap | None) -> Any:
    """Model of a folder or of the hub, divided over processes.

    Args:
        name: name of the model, for errors.
        place: folder, or name on the hub.
        device: `sharded`, or `sharded:N` for models of N processes each.
        dtype: of the weights.
        modules: module map of an unknown family.

    Returns:
        The model; parameters are `DTensor`s.

    Raises:
        MetakeError: the processes cannot be divided so, the family is unknown, or the files lack a weight.
    """
    from accelerate import init_empty_weights
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoConfig, AutoModelForCausalLM

    mesh = share_models(_shards(device))
    folder = _downloaded(place)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    found = modules or FAMILIES.get(config.model_type) or DESCRIBED.get(config.model_type)
    if found is None:
        raise MetakeError(f"{name}: {config.model_type} is no known family; give --modules to divide it")
    with init_empty_weights(include_buffers=False):
        build: Any = AutoModelForCausalLM.from_config  # has no annotations
        model = build(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    parts = list(model.get_submodule(found.blocks))
    if head is not None and head.weight is not embedding.weight:
        parts += [embedding, head]
    for part in parts:
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    near = torch.device("cuda", torch.cuda.current_device()) if mesh.device_type == "cuda" else "cpu"
    tensors = _tensors(name, folder, model, dtype, near)
    model.load_state_dict(tensors, assign=True, strict=False)
    model.tie_weights()
    for buffer in model.buffers():
        buffer.data = buffer.data.to(near)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    # said of skipped blocks, which return a given stream and use no weight
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    setattr(model, MARK, True)
    return model


def _shards(device: str) -> int | None:
    """Number of processes that share a model; None for all."""
    count = device.partition(":")[2]
    if device == "sharded":
        return None
    if not count.isdigit() or int(count) < 1:
        raise MetakeError(f"device: {device}: must be sharded, or sharded:N for models of N processes each")
    return int(count)


def _downloaded(place: str) -> Path:
    """The folder of a model; the first process downloads it from the hub."""
    if os.path.isdir(place):
        return Path(place)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.txt", "*.model"]
    if is_first():
        snapshot_download(place, allow_patterns=wanted)
    wait_for_all()
    return Path(snapshot_download(place, allow_patterns=wanted, local_files_only=True))


def _tensors(
    name: str, folder: Path, model: Any, dtype: torch.dtype, device: torch.device | str
) -> dict[str, Any]:
    """Parameter -> its divided tensor, of which only this process's share is read."""
    from safetensors import safe_open
    from torch.distributed.tensor import DTensor

    files = _files(name, folder)
    opened: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for parameter, empty in model.named_parameters():
        source = _source(parameter, model.base_model_prefix, files)
        if source is None:
            raise MetakeError(
                f"{name}: {folder}: has no weight {parameter} (weights of some families are converted when they are "
                "loaded); use --device auto"
            )
        if files[source] not in opened:
            opened[files[source]] = safe_open(folder / files[source], framework="pt")
        stored = opened[files[source]].get_slice(source)
        if tuple(stored.get_shape()) != tuple(empty.shape):
            raise MetakeError(
                f"{name}: {files[source]}: {source} is {stored.get_shape()}, the model's {list(empty.shape)}"
            )
        local = stored[_share(empty)].to(device, dtype)
        found[parameter] = DTensor.from_local(
            local,
            empty.device_mesh,
            empty.placements,
            run_check=False,
            shape=empty.shape,
            stride=empty.stride(),
        )
    return found


def _files(name: str, folder: Path) -> dict[str, str]:
    """Weight -> the file of a folder that holds it."""
    from safetensors import safe_open

    if (folder / INDEX).is_file():
        return dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
    if not (folder / SINGLE).is_file():
        raise MetakeError(f"{name}: {folder}: has no {SINGLE}; only safetensors can be read in shares")
    with safe_open(folder / SINGLE, framework="pt") as stored:
        return dict.fromkeys(stored.keys(), SINGLE)


def _source(parameter: str, prefix: str, files: dict[str, str]) -> str | None:
    """Name of a parameter in the files, which may lack the prefix of the base model or have it in addition."""
    names = (parameter, parameter.removeprefix(f"{prefix}."), f"{prefix}.{parameter}")
    return next((name for name in names if name in files), None)
