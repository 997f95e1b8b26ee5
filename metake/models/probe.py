"""Test that the residual stream receives the output of every down-projection unchanged.

A module map gives the names of modules, not the operations between them. One pass over a few tokens tests them before
any edit: every block is rerun with a known perturbation of its down-projection's output, and the residual stream must
change by exactly this perturbation.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metake.errors import MetakeError
from metake.models.weights import is_plain

if TYPE_CHECKING:
    from metake.models.editable import EditableModel

TOKENS = 3  # the perturbed token, one before and one after it
ROUNDING = 16  # units in the last place of the largest entry


def stream_of(output: Any) -> Tensor:
    """Residual stream from a block's output.

    Args:
        output: a tensor, or a tuple or list that begins with it.

    Returns:
        The stream, `rows x length x d_v`.
    """
    while isinstance(output, tuple | list):
        output = output[0]
    stream: Tensor = output
    return stream


@torch.no_grad()
def check_values(model: EditableModel) -> None:
    """Test every block, and the head.

    Args:
        model: the model.

    Raises:
        MetakeError: the model cannot be run on token ids alone, a down-projection is not run, its output is not its
            weight times the key, the stream does not receive this output, or the head does not read the stream.
    """
    ids = torch.arange(TOKENS, device=model.device)[None]
    replaying = False
    measured: list[int] = []

    def measure(layer: int) -> Callable[..., None]:
        def replay(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            nonlocal replaying
            if replaying:
                return
            replaying = True
            try:
                _check_block(model, layer, lambda: stream_of(block(*args, **kwargs)))
            finally:
                replaying = False
            measured.append(layer)

        return replay

    from metake.models.trace import route_through_down  # builds on this module

    alone = _logits(model, ids)
    with ExitStack() as stack:
        route_through_down(stack, model)
        for layer, block in enumerate(model.blocks):
            stack.callback(block.register_forward_hook(measure(layer), with_kwargs=True).remove)
        whole = _logits(model, ids)
    missing = sorted(set(range(len(model))) - set(measured))
    if missing:
        raise MetakeError(
            f"{model.family}: block {missing[0]} of {model.modules.blocks} is not run in a forward pass; correct the module map"
        )
    if not float((whole - alone).abs().max()) <= 1e3 * torch.finfo(whole.dtype).eps * float(
        alone.abs().max()
    ):
        raise MetakeError(
            f"{model.family}: {model.modules.down} is not what the experts' outputs are computed with; not supported"
        )
    _check_head(model, ids, whole)


def _logits(model: EditableModel, ids: Tensor) -> Tensor:
    try:
        return logits_of(model.model(input_ids=ids, use_cache=False))
    except MetakeError:
        raise
    except Exception as error:  # whatever the model's own code raises
        reason = " ".join(str(error).split())[:200]
        raise MetakeError(
            f"{model.family}: cannot be run on token ids alone ({type(error).__name__}: {reason}); not supported"
        ) from error


def logits_of(output: Any) -> Tensor:
    """Logits from a model's output.

    Args:
        output: an object with `logits`, or a tuple that begins with them (`return_dict=False`).

    Returns:
        The logits, `rows x length x vocabulary`.
    """
    logits: Tensor = output[0] if isinstance(output, tuple) else output.logits
    return logits


def _check_block(model: EditableModel, layer: int, run: Callable[[], Tensor]) -> None:
    """Perturb the down-projection's output at one token: the stream must change by this there, and nowhere else."""
    down, where = model.down(layer), f"{model.family}: the output of {model.modules.down} of block {layer}"
    keys: list[Tensor] = []
    values: list[Tensor] = []
    push = torch.zeros(TOKENS, model.d_v, dtype=torch.float64)

    def add(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        keys.append(args[0])
        values.append(output)
        if output.numel() != push.numel():  # of some tokens only, which is refused below
            return output
        return output + push.reshape(output.shape).to(output)

    handle = down.register_forward_hook(add)
    try:
        still = run().reshape(TOKENS, -1).cpu().double()
        if not keys:
            raise MetakeError(
                f"{where} is never computed (perhaps a fused kernel replaces it); not supported"
            )
        if len(keys) > 1:
            raise MetakeError(f"{where} is computed {len(keys)} times in a pass; not supported")
        if keys[0].numel() != TOKENS * model.d_k:
            raise MetakeError(
                f"{where} is computed for some tokens only (a mixture of experts?); not supported"
            )
        if still.shape[1] != model.d_v:
            raise MetakeError(
                f"{where} has {model.d_v} entries, the stream {still.shape[1]}; correct the module map"
            )
        norm, value = model.post_norm(layer), values[0].reshape(TOKENS, -1)
        largest = float((still if norm is None else value).abs().max())
        scale = largest or 1.0  # so that rounding is small beside it
        push[1] = torch.linspace(1, 2, model.d_v, dtype=torch.float64) * scale
        wanted = push
        if norm is not None:
            norm.check(f"{model.family}: {type(norm.norm).__name__} of block {layer}", value.float())
            wanted = (norm(value + push.to(value)) - norm(value)).cpu().double()
            scale = float(still.abs().max()) + float(wanted.abs().max())
        error = float((run().reshape(TOKENS, -1).cpu().double() - still - wanted).abs().max())
    finally:
        handle.remove()
    if not error <= ROUNDING * torch.finfo(model.weight(layer).dtype).eps * scale:
        raise MetakeError(
            f"{where} is normalized, scaled, mixed or dropped before it is added to the residual stream, "
            "so the stream would not receive the edit; not supported"
        )
    if not is_plain(down):
        _check_map(f"{model.family}: {model.modules.down} of block {layer}", down, keys[0])


def _check_map(where: str, down: nn.Module, keys: Tensor) -> None:
    """Test that a module of another class, or with hooks, maps a key to `W k` plus a constant."""
    keys = keys.reshape(1, TOKENS, -1)
    weight = down.get_parameter("weight").detach()
    wanted = (keys @ (weight if isinstance(down, Conv1D) else weight.T)).double()
    found = down(keys).double() - down(torch.zeros_like(keys)).double()
    scale = (
        float(found.abs().max()) + float(wanted.abs().max()) + float(down(torch.zeros_like(keys)).abs().max())
    )
    # sums of d_k products, in an order that may differ, and a difference of rounded numbers
    bound = (ROUNDING + keys.shape[-1] ** 0.5) * torch.finfo(weight.dtype).eps * scale
    if not float((found - wanted).abs().max()) <= bound:
        raise MetakeError(
            f"{where} ({type(down).__name__}): the output is not the weight times the input (an adapter or "
            "a hook?), so it would not show an edit of the weight; merge or remove the adapter or hook"
        )


def _check_head(model: EditableModel, ids: Tensor, whole: Tensor) -> None:
    """Test that the head gives the same logits for one position as for all positions."""

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][:, -1],)

    with ExitStack() as stack:
        stack.callback(model.head.register_forward_pre_hook(gather).remove)
        try:
            some = logits_of(model.model(input_ids=ids, use_cache=False))
            off = float((some.reshape(-1) - whole[0, -1]).abs().max())
        except Exception:  # any error of a module that is not the head
            off = float("nan")
    if not off <= 1e3 * torch.finfo(whole.dtype).eps * float(whole.abs().max()):
        raise MetakeError(
            f"{model.family}: {model.modules.head} does not turn the stream into logits; correct the module map's head"
        )
