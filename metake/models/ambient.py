"""Default PyTorch modes inside the library: inference mode, autocast, default dtype and default device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from metake.errors import MetakeError


@contextmanager
def neutral() -> Iterator[None]:
    """Context with PyTorch's default modes and the caller's gradient mode; the caller's modes are restored afterwards."""
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(gradients))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def refuse_inference_tensors(model: nn.Module) -> None:
    """Refuse a model created inside `torch.inference_mode()`: its weights allow neither gradients nor updates.

    Args:
        model: the model.

    Raises:
        MetakeError: some of its weights are inference tensors.
    """
    name = next((name for name, p in model.named_parameters() if p.is_inference()), None)
    if name is not None:
        raise MetakeError(
            f"model: {name} was created inside torch.inference_mode() and cannot be edited; load the model outside it"
        )


def exact_device(device: torch.device) -> torch.device:
    """Device of sums and solves in fp64: the device itself, or the CPU for an Apple GPU, which has no fp64.

    Args:
        device: device of the weights.

    Returns:
        The device.
    """
    return torch.device("cpu") if device.type == "mps" else device
