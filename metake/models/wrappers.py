"""Unwrap a user's model to the module that holds the weights, or refuse the wrapper."""

from __future__ import annotations

from torch import nn

from metake.errors import MetakeError
from metake.models.sharded import is_sharded

# share the tensors of the inner model, so that an edit of the inner model edits them too
REPLICAS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def compiled_from(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped; another module is returned unchanged.

    Args:
        module: any module.

    Returns:
        The inner module.
    """
    inner = module._modules.get("_orig_mod")
    return module if inner is None else inner


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, `DataParallel` and `DistributedDataParallel`, which share its weights.

    Args:
        model: a model of the user.

    Returns:
        The module that holds the weights.

    Raises:
        MetakeError: the model has adapters, its weights are sharded, or some are not in memory.
    """
    if not isinstance(model, nn.Module):
        raise MetakeError(f"model: a torch module is needed, got {type(model).__name__}")
    while True:
        inner = model.module if isinstance(model, REPLICAS) else compiled_from(model)
        if inner is model:
            break
        model = inner
    _refuse_adapters(model)
    _refuse_absent_weights(model)
    return model


def _refuse_adapters(model: nn.Module) -> None:
    for module in model.modules():
        if type(module).__module__.partition(".")[0] == "peft":
            raise MetakeError(
                f"model: {type(model).__name__} has PEFT adapters, which an edit of its weights would not include; merge "
                "them first: model = PeftModel.from_pretrained(base, adapter).merge_and_unload()"
            )


def _refuse_absent_weights(model: nn.Module) -> None:
    if is_sharded(model):
        return
    for name, parameter in model.named_parameters():
        if "FlatParameter" in type(parameter).__name__ or hasattr(parameter, "full_tensor"):
            raise MetakeError(
                f"model: {name} is sharded (FSDP or tensor parallel); edit the model before it is sharded, or shard "
                "its layers with device auto"
            )
        if parameter.is_meta:
            raise MetakeError(
                f"model: {name} is not in memory (offloaded to the CPU or to disk, or never loaded), so an edit would "
                "be lost; load the whole model into memory: on another device, on more GPUs, or in bf16"
            )


def runs_compiled(model: nn.Module) -> bool:
    """Whether a part of the model was compiled; its forward passes may then skip hooks.

    Args:
        model: the model.

    Returns:
        True if any module was compiled.
    """
    return any(
        module.__dict__.get("_compiled_call_impl") is not None or "_orig_mod" in module._modules
        for module in model.modules()
    )
