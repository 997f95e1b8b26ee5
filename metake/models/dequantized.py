"""Quantized linear modules replaced by dense ones with the weights that they stand for.

An edit is planned on these weights, and delivered as an adapter over the quantized model (docs/export.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metake.errors import MetakeError
from metake.models.weights import DTYPES

ROWS = 1024  # inputs per pass


def is_quantized(module: nn.Module) -> bool:
    """Whether a module is a linear map whose weight is quantized, in the format of any library.

    Args:
        module: the module.

    Returns:
        False for a linear map with a plain weight, and for other modules.
    """
    if not isinstance(getattr(module, "in_features", None), int) or not hasattr(module, "out_features"):
        return False
    weight = module._parameters.get("weight")
    if weight is None:
        return "quant" in type(module).__module__.lower()
    return weight.dtype not in DTYPES or type(weight.data) is not Tensor


@torch.no_grad()
def dense_linear(module: nn.Module, dtype: torch.dtype) -> nn.Linear:
    """The dense form of a quantized linear module: its outputs for the unit vectors are its weight.

    Args:
        module: a module of any library, called with `rows x in_features`.
        dtype: of the weight.

    Returns:
        A linear module on the same device.
    """
    size, bias = int(module.in_features), module._parameters.get("bias")  # type: ignore[arg-type]
    device = next(iter([*module.parameters(), *module.buffers()])).device
    dense = nn.Linear(size, int(module.out_features), bias is not None, device, dtype)  # type: ignore[arg-type]
    inputs = torch.float32 if dtype == torch.float64 else dtype  # no library has kernels in fp64
    module._parameters["bias"] = None
    for start in range(0, size, ROWS):
        rows = torch.eye(min(ROWS, size - start), size, dtype=inputs, device=device).roll(start, 1)
        dense.weight[:, start : start + ROWS] = module(rows).T
    if bias is not None:
        module._parameters["bias"] = bias
        dense.bias.copy_(bias)
    return dense.requires_grad_(False)


def dequantize(model: nn.Module, name: str, dtype: torch.dtype) -> int:
    """Replace the quantized linear modules of a model by dense ones.

    Args:
        model: the model; afterwards it no longer says that it is quantized.
        name: its name; begins the error line.
        dtype: of the dense weights.

    Returns:
        Number of modules.

    Raises:
        MetakeError: the library cannot run a module on this machine.
    """
    found = [(path, module) for path, module in model.named_modules() if is_quantized(module)]
    for path, module in found:
        parent, _, leaf = path.rpartition(".")
        try:
            dense = dense_linear(module, dtype)
        except Exception as error:  # a kernel raises whatever its library raises
            raise MetakeError(
                f"{name}: {path} ({type(module).__name__}) cannot be dequantized here ({type(error).__name__}); edit the unquantized "
                "model, and serve the edit as an adapter over the quantized one (metake export)"
            ) from error
        setattr(model.get_submodule(parent), leaf, dense)
    forget_quantization(model)
    model.__dict__.pop(
        "_weight_conversions", None
    )  # of the quantized file; cannot be reversed when the model is saved
    return len(found)


def forget_quantization(model: nn.Module) -> None:
    """Remove the marks of quantization, with which `transformers` refuses to save or move a dense model.

    Args:
        model: a model with dense weights.
    """
    for holder in (getattr(model, "config", None), model):
        for key in (
            "quantization_config",
            "hf_quantizer",
            "quantization_method",
            "is_loaded_in_8bit",
            "is_loaded_in_4bit",
        ):
            if key in getattr(holder, "__dict__", {}):
                delattr(holder, key)
    model.is_quantized = False  # type: ignore[assignment]
