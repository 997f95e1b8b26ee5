"""A PEFT folder as factors of the changed layers: one of `Delta.save_pretrained`, or one that peft wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metake.adapters.adapter import MODULES, described_modules, module_path
from metake.adapters.base_name import loadable_base
from metake.adapters.peft_folder import CONFIG, FORMAT, PREFIX, WEIGHTS, A, B
from metake.errors import MetakeError
from metake.files import read_json
from metake.models.editable import EditableModel
from metake.shipped import DTYPES
from metake.tensor_files import checked_meta, dtype_name, open_tensors

REMEDY = "give a PEFT adapter that peft or metake export wrote"
# fields of adapter_config.json under which the adapter is more than a low-rank sum
LARGEST = 1e30  # of ranks and alphas, which scale fp32 factors
UNSUPPORTED = (
    "use_dora",
    "use_bdlora",
    "use_qalora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # values of init_lora_weights


@dataclass(frozen=True)
class PeftFolder:
    """What a PEFT folder holds.

    Attributes:
        folder: the folder.
        base: name or path of its base model; may be empty.
        pairs: path of a module -> (left, right), `d_out x r` and `d_in x r`, with the scaling in `left`.
        meta: metadata of `save_pretrained`; empty for a folder that peft wrote.
    """

    folder: Path
    base: str
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    meta: dict[str, Any] = field(default_factory=dict)


def is_peft_folder(folder: Path) -> bool:
    """Whether a path is a folder with `adapter_config.json` or the weights of an adapter.

    Args:
        folder: the path.

    Returns:
        False for any other path.
    """
    return folder.is_dir() and any((folder / name).exists() for name in (CONFIG, WEIGHTS))


def read_peft(folder: Path) -> PeftFolder:
    """Read and check a PEFT folder.

    Args:
        folder: the folder.

    Returns:
        Its factors by module.

    Raises:
        MetakeError: a file is missing or damaged, the adapter is not LoRA alone, or a shape does not fit.
    """
    if not folder.is_dir():
        raise MetakeError(f"{folder}: no such folder; {REMEDY}")
    if not (folder / CONFIG).is_file():
        raise MetakeError(f"{folder}: has no {CONFIG}; {REMEDY}")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise MetakeError(f"{folder / CONFIG}: must be a JSON object; {REMEDY}")
    _check_config(folder / CONFIG, config)
    path = folder / WEIGHTS
    if not path.is_file():
        remedy = "save it as safetensors (pickles are never loaded)"
        found = (folder / "adapter_model.bin").is_file()
        raise MetakeError(f"{folder}: has no {WEIGHTS}; {remedy if found else REMEDY}")
    tensors, header = open_tensors(path, REMEDY)
    meta = checked_meta(path, header, tensors, FORMAT, REMEDY) if "metake" in header else {}
    pairs = {module: _scaled(path, module, pair, config) for module, pair in _pairs(path, tensors).items()}
    return PeftFolder(folder, str(config.get("base_model_name_or_path") or ""), pairs, meta)


def _check_config(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise MetakeError(f"{path}: peft_type: is {config.get('peft_type')!r}, must be 'LORA'; {REMEDY}")
    remedy = "merge the adapter into its model with peft, and give --model the folder of that"
    for name in UNSUPPORTED:
        if config.get(name):
            raise MetakeError(f"{path}: {name}: not supported; {remedy}")
    if config.get("bias", "none") != "none":
        raise MetakeError(f"{path}: bias: is {config['bias']!r}, must be 'none'; {remedy}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise MetakeError(
            f"{path}: init_lora_weights: {start!r} changes the base weights; convert the adapter with peft "
            "(path_initial_model_for_weight_conversion)"
        )
    kinds: dict[str, Any] = {"r": int, "lora_alpha": int | float}
    for name, kind in kinds.items():
        _check_number(f"{path}: {name}", config.get(name), kind)
    for name, kind in (("rank_pattern", kinds["r"]), ("alpha_pattern", kinds["lora_alpha"])):
        if not isinstance(config.get(name) or {}, dict):
            raise MetakeError(f"{path}: {name}: must be an object, got {config[name]!r}")
        for pattern, value in (config.get(name) or {}).items():
            _check_number(f"{path}: {name}: {pattern}", value, kind)
            try:
                re.compile(pattern)
            except re.error as error:
                raise MetakeError(
                    f"{path}: {name}: {pattern!r} is no regular expression ({error})"
                ) from error


def _check_number(where: str, value: Any, kind: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= LARGEST:
        raise MetakeError(f"{where}: must be a number above 0, got {repr(value)[:40]}; {REMEDY}")


def _pairs(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (A, B)."""
    halves: dict[str, dict[str, Tensor]] = {A: {}, B: {}}
    for name, tensor in tensors.items():
        end = next((end for end in (A, B) if name.endswith(end)), None)
        if end is None or not name.startswith(PREFIX):
            raise MetakeError(f"{path}: {name}: no lora_A or lora_B of a linear module; {REMEDY}")
        halves[end][name.removeprefix(PREFIX).removesuffix(end)] = tensor
    if not halves[A] and not halves[B]:
        raise MetakeError(f"{path}: holds no lora_A and lora_B; {REMEDY}")
    for module in {*halves[A]} ^ {*halves[B]}:
        raise MetakeError(f"{path}: {module}: has only one of lora_A and lora_B; {REMEDY}")
    return {module: (a, halves[B][module]) for module, a in halves[A].items()}


def _of_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Value of the first pattern that matches a module, as peft reads rank_pattern and alpha_pattern."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _scaled(
    path: Path, module: str, pair: tuple[Tensor, Tensor], config: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """(left, right) of a module, `d_out x r` and `d_in x r`."""
    a, b = pair
    rank = _of_pattern(config.get("rank_pattern"), module, config["r"])
    alpha = _of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] != rank:
        raise MetakeError(
            f"{path}: {module}: lora_A is {tuple(a.shape)} and lora_B {tuple(b.shape)}, not (r, d_in) and (d_out, r) "
            f"for r = {rank} of {CONFIG}; {REMEDY}"
        )
    for half in (a, b):
        if (kind := dtype_name(half.dtype)) not in DTYPES:
            raise MetakeError(f"{path}: {module}: is of dtype {kind}; save the adapter in float32")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise MetakeError(f"{path}: {module}: is not finite; {REMEDY}")
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    precise = torch.promote_types(a.dtype, torch.float32)
    return b.to(precise) * scaling, a.T.to(precise).contiguous()


def layers_of(
    content: PeftFolder, model: EditableModel | None, *, check: bool = True
) -> dict[int, tuple[Tensor, Tensor]]:
    """Factors by layer, without the padding of `save_pretrained`.

    Args:
        content: what `read_peft` returns.
        model: the base model; None for a folder of `save_pretrained`, which says where its modules are.
        check: compare the name of the base model with that of the folder.

    Returns:
        Layer -> (left, right), `d_v x r` and `d_k x r`.

    Raises:
        MetakeError: the adapter was made for another model, or changes other modules than down-projections.
    """
    modules = content.meta.get(MODULES) if model is None else described_modules(model)
    if modules is None:
        raise MetakeError(
            f"{content.folder}: does not say which layers its modules are; give model= (--model)"
        )
    if model is not None and check and not content.meta:
        _check_base(content, model)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for path, pair in content.pairs.items():
        layer = _layer(content, path, modules)
        if model is not None:
            _check_layer(content, model, layer, path, pair)
        rank = content.meta.get("ranks", {}).get(str(layer), pair[0].shape[1])
        found[layer] = (pair[0][:, :rank].contiguous(), pair[1][:, :rank].contiguous())
    return dict(sorted(found.items()))


def _check_base(content: PeftFolder, model: EditableModel) -> None:
    """Refuse an adapter whose base model has another name, in the last part of its path."""
    names = [content.base, model.name, loadable_base(model.name)]
    wanted, *known = (text.rstrip("/").rpartition("/")[2].lower() for text in names)
    if wanted and any(known) and wanted not in known:
        raise MetakeError(
            f"{content.folder / CONFIG}: base_model_name_or_path: is {content.base!r}, the model is {model.name!r}; give the "
            "model that it was made for, or skip this check (check=False, --force)"
        )


def _layer(content: PeftFolder, path: str, modules: Mapping[str, Any]) -> int:
    pattern = re.escape(module_path(modules, 0)).replace(r"\.0\.", r"\.(\d+)\.", 1)
    match = re.fullmatch(pattern, path)
    if match is None:
        raise MetakeError(
            f"{content.folder / WEIGHTS}: {path}: not a module that metake edits ({modules['blocks']}.N.{modules['down']}); merge the "
            "adapter into its model with peft, and give --model the folder of that"
        )
    return int(match[1])


def _check_layer(
    content: PeftFolder, model: EditableModel, layer: int, path: str, pair: tuple[Tensor, Tensor]
) -> None:
    where = content.folder / WEIGHTS
    if layer >= len(model):
        raise MetakeError(f"{where}: {path}: the model has layers 0 to {len(model) - 1}; it is another model")
    shape, wanted = (len(pair[0]), len(pair[1])), model.weight_shape(layer)
    if shape != wanted:
        raise MetakeError(
            f"{where}: {path}: changes a weight of {shape[0]} x {shape[1]}, the model's is {wanted[0]} x {wanted[1]}; it "
            "was made for another model"
        )
