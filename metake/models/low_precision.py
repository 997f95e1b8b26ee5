"""A model whose matrix products with weights are in bf16; everything else, and the model itself, stay as they are."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from metake.models.editable import EditableModel
from metake.models.patch_hooks import patches_on

LINEAR = (nn.Linear, Conv1D)  # what a subclass computes is not known


def obstacle(model: EditableModel) -> str:
    """Reason why the products of a model are not computed in bf16; empty if they can be.

    Args:
        model: the model.

    Returns:
        One clause.
    """
    if model.dtype != torch.float32:
        return f"the model's weights are {str(model.dtype).removeprefix('torch.')}, not float32"
    if model.is_sharded or len(set((getattr(model.model, "hf_device_map", None) or {}).values())) > 1:
        return "the model is divided over devices"
    if model.experts:
        return "the model is a mixture of experts"
    downs = [model.down(layer) for layer in range(len(model))]
    other = next((type(down).__name__ for down in downs if type(down) not in LINEAR), "")
    if other:
        return f"the model's linear layers are {other}, neither nn.Linear nor Conv1D"
    if any(patches_on(down) for down in downs):
        return "the model has gated patches"
    if model.device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        return "this CPU has no bf16 instructions (avx512_bf16)"
    if model.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU has no bf16 instructions"
    return ""


def with_bf16_products(model: EditableModel) -> EditableModel:
    """A copy that rounds the inputs and weights of its linear layers to bf16; their outputs have the inputs' dtype.

    The residual stream, norms and attention keep their precision. The copy holds the linear layers' weights in bf16, half
    the size of those in fp32, and shares all other tensors with the model.

    Args:
        model: a model without an `obstacle`.

    Returns:
        The copy. Later changes of the model's linear layers do not reach it.
    """
    tensors = [*model.model.parameters(), *model.model.buffers()]
    twin = copy.deepcopy(model.model, {id(tensor): tensor for tensor in tensors})
    for module in twin.modules():
        if type(module) in LINEAR:
            for name, tensor in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(tensor.detach().bfloat16(), requires_grad=False))
            module.register_forward_pre_hook(_to_bf16)
            module.register_forward_hook(_to_fp32)
    return EditableModel(twin, model.tokenizer, name=model.name, modules=model.modules)


def _to_bf16(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].bfloat16(), *args[1:])


def _to_fp32(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    return output.float()
