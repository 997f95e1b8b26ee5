"""Hyper-parameter files of ROME, MEMIT, AlphaEdit, BLUE, UltraEdit and EasyEdit (JSON or YAML), read as they are."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metake.errors import MetakeError
from metake.files import read_json, read_text
from metake.models.editable import EditableModel
from metake.names import did_you_mean, unknown_name

SETTINGS = {
    "layers": "layers",
    "v_num_grad_steps": "steps",
    "v_lr": "lr",
    "v_weight_decay": "decay",
    "clamp_norm_factor": "clamp",
    "kl_factor": "kl",
    "mom2_update_weight": "lam",
    "nullspace_threshold": "threshold",
    "L2": "l2",
}
ULTRAEDIT = {"lr": "gradient_lr"}
SUPPORTED_VALUES = {
    "fact_token": ("subject_last", "last"),
    "layer_selection": "all",
    "token": ("mask", "ans"),
    "update_norm_lambda": 0,
}
HANDLED_SEPARATELY = {
    "mom2_adjustment",
    "blue",
    "emmet_lambda",
    "edit_modules",
    "inner_params",
    "rewrite_module_tmp",
}
IGNORED = {  # what the command line, the model itself or the statistics say
    "alg_name",
    "model_name",
    "model_class",
    "tokenizer_class",
    "tokenizer_name",
    "model_parallel",
    "device",
    "fp16",
    "half",
    "batch_size",
    "batch_size_once",
    "editor_batch_size",
    "max_length",
    "stats_dir",
    "P_loc",
    "mom2_dataset",
    "mom2_n_samples",
    "mom2_dtype",
    "v_loss_layer",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
    "context_template_length_params",
    "results_dir",
    "silent",
    "no_grad_layers",
    "dropout",
}


def read_published(path: Path | str, model: EditableModel) -> dict[str, Any]:
    """Settings of a published hyper-parameter file, as changes of a method.

    Fields about the model, the hardware and the statistics are not used. Unknown names are reported in a warning.

    Args:
        path: a JSON or YAML file.
        model: the model, whose module names are compared with those in the file.

    Returns:
        Setting -> value.

    Raises:
        MetakeError: not JSON or YAML, a choice that this library does not make, or modules that are not the
            down-projections of `model`.
    """
    path = Path(path)
    content = _read(path)
    ultra = str(content.get("alg_name", "")).lower() == "ultraedit" or "inner_params" in content
    known = {**SETTINGS, **(ULTRAEDIT if ultra else {})}
    for name, only in SUPPORTED_VALUES.items():
        allowed = only if isinstance(only, tuple) else (only,)
        if name in content and content[name] not in allowed:
            raise MetakeError(f"{path}: {name}: only {allowed[0]!r} is known here, not {content[name]!r}")
    changes = {known[name]: value for name, value in content.items() if name in known}
    if "fact_token" in content:
        changes["lookup"] = "prompt" if content["fact_token"] == "last" else "subject"
    if content.get("mom2_adjustment") is False:
        changes["geometry"] = "identity"
    if content.get("emmet_lambda"):  # EMMET with emmet_lambda is MEMIT's least squares at lambda times it
        changes["fit"] = "least_squares"
        changes["lam"] = float(changes.get("lam", 1.0)) * float(content["emmet_lambda"])
    if content.get("blue") is True:
        changes["allocation"] = "boundary"
    for name in ("edit_modules", "inner_params"):
        if name in content:
            changes["layers"] = _layers(path, name, content[name])
            _check(path, name, content[name], changes["layers"], model)
    template = content.get("rewrite_module_tmp")
    if template is not None and "layers" in changes:
        names = [str(template).replace("{}", str(layer)) for layer in changes["layers"]]
        _check(path, "rewrite_module_tmp", names, changes["layers"], model)
    read = {*known, *SUPPORTED_VALUES, *HANDLED_SEPARATELY, *IGNORED}
    if unknown := sorted(set(content) - read):
        near = [f"{name} ({meant})" for name in unknown if (meant := did_you_mean(name, read))]
        rest = [name for name in unknown if not did_you_mean(name, read)]
        warnings.warn(f"{path}: not known and not used: {', '.join(near + rest)}", stacklevel=2)
    return changes


def published_for(
    files: Mapping[str, Path], methods: list[str], model: EditableModel
) -> dict[str, dict[str, Any]]:
    """Changes of each method, from files by method.

    Args:
        files: method -> file; the file under "" is for all methods without their own.
        methods: names of the methods.
        model: the model.

    Returns:
        Method -> setting -> value.

    Raises:
        MetakeError: a file is for a method that is not asked for, or cannot be read.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    for name in files:
        if name and name not in methods:
            raise unknown_name("--hparams METHOD=FILE", name, methods)
    chosen = {method: files.get(method, files.get("")) for method in methods}
    return {m: {} if path is None else read_published(path, model) for m, path in chosen.items()}


def parse_files(texts: list[str] | None) -> dict[str, Path]:
    """Values of the option `--hparams [METHOD=]FILE`.

    Args:
        texts: the values.

    Returns:
        Method -> file; "" for a file without a method.
    """
    pairs = [text.rpartition("=") for text in texts or []]
    return {method: Path(file) for method, _, file in pairs}


def _read(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            content = yaml.safe_load(read_text(path))
        except (yaml.YAMLError, RecursionError, ValueError) as error:  # a date of no calendar is a ValueError
            raise MetakeError(f"{path}: not YAML ({' '.join(str(error).split())[:120]})") from error
    else:
        content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise MetakeError(
            f"{path}: contains no hyper-parameters; expected a mapping of names to values, as in the published files"
        )
    return content


def _layers(path: Path, name: str, modules: Any) -> list[int]:
    numbers = [re.search(r"\.(\d+)\.", str(module)) for module in modules or ()]
    if not numbers or None in numbers:
        raise MetakeError(f"{path}: {name}: want names of modules with the number of their layer")
    return [int(found[1]) for found in numbers if found is not None]


def _check(path: Path, name: str, modules: list[str], layers: Any, model: EditableModel) -> None:
    """Every module is the down-projection of its layer."""
    model.check_layers(tuple(layers))
    named = dict(model.model.named_modules())
    for module, layer in zip(modules, layers, strict=True):
        if named.get(module) is not model.down(layer):
            raise MetakeError(
                f"{path}: {name}: {module} is not the down-projection of layer {layer} of this model, "
                "which is all that is edited here"
            )
