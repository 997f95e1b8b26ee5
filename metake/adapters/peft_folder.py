"""An adapter as a folder of the package peft: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from metake.adapters.adapter import MODULES, Adapter
from metake.files import write_file, write_json
from metake.tensor_files import tensor_header

FORMAT = "metake-adapter-1"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"


def config_of(adapter: Adapter) -> dict[str, Any]:
    """Content of `adapter_config.json`. Alpha equals the rank of each layer, so the scaling is 1.

    Args:
        adapter: the adapter.

    Returns:
        Values that a JSON file can hold.
    """
    ranks = {adapter.path(n): low.rank for n, low in adapter.written.items()}
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != common}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base or None,
        "inference_mode": True,
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "target_modules": list(ranks),
        "fan_in_fan_out": bool(adapter.modules["conv1d"]),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def tensors_of(adapter: Adapter) -> dict[str, Tensor]:
    """Tensors of `adapter_model.safetensors`: A is `r x d_in`, B is `d_out x r`, also for Conv1D.

    Args:
        adapter: the adapter.

    Returns:
        Name -> tensor.
    """
    tensors: dict[str, Tensor] = {}
    for layer, low in adapter.written.items():
        name = PREFIX + adapter.path(layer)
        tensors |= {name + A: low.right.T.contiguous(), name + B: low.left.contiguous()}
    return tensors


def write_peft(adapter: Adapter, folder: Path) -> None:
    """Write the two files of a PEFT folder. Equal adapters give equal bytes.

    Args:
        adapter: the adapter.
        folder: an existing folder.
    """
    tensors = tensors_of(adapter)
    meta = {
        "model": adapter.fingerprint,
        "note": adapter.note,
        MODULES: dict(adapter.modules),
        "ranks": {str(n): low.rank for n, low in adapter.layers.items()},
        "errors": {str(n): low.error for n, low in adapter.layers.items()},
    }
    content = save(tensors, {"format": "pt", "metake": tensor_header(FORMAT, tensors, meta)})
    write_file(folder / WEIGHTS, lambda place: place.write_bytes(_with_sorted_metadata(content)))
    write_json(folder / CONFIG, config_of(adapter))


def _with_sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in a fixed order; safetensors writes them in a random one."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
