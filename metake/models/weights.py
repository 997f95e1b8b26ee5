"""Check that a down-projection can be edited: a plain parameter of a linear map that no other module shares."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from metake.errors import MetakeError

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_weight(where: str, module: nn.Module, sharded: bool = False) -> None:
    """Refuse a module whose weight cannot be edited.

    Args:
        where: model and module; begins the error line.
        module: the down-projection.
        sharded: whether the model is divided over processes by `metake.models.sharded`.

    Raises:
        MetakeError: the module is not a linear map, or its weight is quantized, computed from other parameters, or a
            tensor subclass.
    """
    kind = type(module)
    weight = module._parameters.get("weight")
    quantized = "quant" in kind.__module__.lower() or (weight is not None and weight.dtype not in DTYPES)
    if quantized:
        what = "quantized" if weight is None else str(weight.dtype)
        raise MetakeError(
            f"{where}: weights are {what} ({kind.__name__}); load the model in fp32, bf16 or fp16, or with metake.load, which "
            "dequantizes it (quantized weights cannot be edited)"
        )
    if not isinstance(module, nn.Linear | Conv1D):
        raise MetakeError(
            f"{where} is a {kind.__module__}.{kind.__name__}; a down-projection must be nn.Linear or Conv1D"
        )
    if weight is None:
        raise MetakeError(
            f"{where}: the weight is computed from other parameters (weight_norm, a parametrization, pruning), so an "
            "edit would be lost; convert it first with parametrize.remove_parametrizations, remove_weight_norm or "
            "prune.remove of torch.nn.utils"
        )
    if type(weight.data) is not torch.Tensor and not sharded:
        raise MetakeError(
            f"{where}: the weight is a {type(weight.data).__name__}, not a plain tensor; load the model in fp32, bf16 or fp16"
        )


def other_uses(model: nn.Module, module: nn.Module, owner: nn.Module | None = None) -> list[str]:
    """Names of the other parameters that share memory with a module's weight.

    Args:
        model: the model.
        module: one of its modules.
        owner: module that holds the weight, if it is another one (the experts of a mixture).

    Returns:
        Dotted names, empty if there are none.
    """
    weight = module._parameters["weight"]
    assert weight is not None
    names = []
    for name, other in model.named_modules():
        for key, parameter in other._parameters.items():
            if (
                other not in (module, owner)
                and parameter is not None
                and _address(parameter) == _address(weight)
            ):
                names.append(f"{name}.{key}")
    return names


def _address(parameter: torch.Tensor) -> int:
    """Address of a tensor's values; of a divided one, those of this process."""
    share: Any = getattr(parameter, "to_local", None)
    return (parameter if share is None else share()).data_ptr()


def is_plain(module: nn.Module) -> bool:
    """Whether a linear map is an `nn.Linear` or `Conv1D` without hooks.

    Args:
        module: the linear map.

    Returns:
        False for subclasses.
    """
    attached = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return type(module) in (nn.Linear, Conv1D) and not attached
