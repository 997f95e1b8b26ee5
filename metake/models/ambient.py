"""What a caller may have switched on around the library, switched off inside it: inference mode, autocast,
default dtypes and default devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from metake.errors import MetakeError


@contextmanager
def neutral() -> Iterator[None]:
    """PyTorch as it starts, but with the caller's gradient mode; all as before afterwards."""
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
    """A model that was made inside `torch.inference_mode()` can neither be planned with nor written to.

    Raises:
        MetakeError: some of its weights are inference tensors.
    """
    name = next((name for name, p in model.named_parameters() if p.is_inference()), None)
    if name is not None:
        raise MetakeError(
            f"model: {name} was made inside torch.inference_mode() and cannot be edited; load the model outside it"
        )
