"""The published procedure as it is usually written: one request after the other, whole passes, dense solves.

A plain implementation of what MEMIT's and AlphaEdit's code does, with this library's prompts, so that
both plan the same thing and times can be compared. Every step of a plan runs the whole model on the
request's prompts and its KL prompt, with all logits, and projects the last stream of the prompts to the
vocabulary a second time, as the published code does; every layer of a solve runs it again for the keys and
for the residuals, and inverts a d_k x d_k system.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metake.geometry.specs import RidgeSpec
from metake.models.editable import EditableModel
from metake.models.tokens import Row, pad
from metake.planners.open_loop import OpenLoop
from metake.prompts import Batch


def _stream(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _logits(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits


def plan(model: EditableModel, batch: Batch, index: int, top: int, s: OpenLoop) -> Tensor:
    """The residual (`d_v`) of one request at block `top`, open loop, early stop on its own loss."""
    rows = list(batch.edits[index * batch.templates : (index + 1) * batch.templates])
    kl_prompt = next(g.row for g in batch.kl_prompts if g.owner == index)
    ids = pad([*rows, kl_prompt]).to(model.device)
    lookups = [row.lookup for row in (*rows, kl_prompt)]
    delta = torch.zeros(model.d_v, device=model.device, requires_grad=True)
    origin: list[Tensor] = []

    def add(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        stream = _stream(output)
        if not origin:
            origin.append(stream[0, lookups[0]].detach().clone())
        stream = stream.clone()
        for i, place in enumerate(lookups):
            stream[i, place] += delta
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    optimizer = torch.optim.Adam([delta], lr=s.lr)
    reference = None
    last: list[Tensor] = []
    handles = [
        model.blocks[top].register_forward_hook(add),
        model.head.register_forward_pre_hook(lambda _, args: last.append(args[0])),
    ]
    try:
        for step in range(s.steps):
            optimizer.zero_grad()
            last.clear()
            guarded = _logits(model.model, ids).float().log_softmax(-1)
            scores = model.head(last[0][: len(rows)]).float().log_softmax(-1)
            nll = torch.stack(
                [
                    -torch.stack(
                        [
                            scores[i, at, token]
                            for at, token in zip(row.predicting, row.answer_ids, strict=True)
                        ]
                    ).mean()
                    for i, row in enumerate(rows)
                ]
            ).mean()
            now = guarded[len(rows), lookups[-1]]
            reference = now.detach().clone() if reference is None else reference
            kl = s.kl * (now.exp() * (now - reference)).sum()
            decay = s.decay * delta.norm() / origin[0].norm() ** 2 if bool(delta.detach().any()) else 0.0
            loss = nll + kl + decay
            if loss.item() < s.stop_loss or step == s.steps - 1:
                break
            loss.backward()
            optimizer.step()
            if s.clamp is not None:
                limit = s.clamp * origin[0].norm()
                with torch.no_grad():
                    if delta.norm() > limit:
                        delta.mul_(limit / delta.norm())
    finally:
        for handle in handles:
            handle.remove()
    return delta.detach()


@torch.no_grad()
def _at(model: EditableModel, rows: Sequence[Row], module: nn.Module, *, inputs: bool) -> Tensor:
    """Input or output of a module at the rows' lookup tokens; whole passes of 128 rows."""
    found: list[Tensor] = []
    for start in range(0, len(rows), 128):
        group = rows[start : start + 128]
        seen: list[Tensor] = []
        if inputs:
            handle = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        else:
            handle = module.register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(_stream(output))
            )
        _logits(model.model, pad(group).to(model.device))
        handle.remove()
        found += [seen[0][i, row.lookup] for i, row in enumerate(group)]
    return torch.stack(found)


@torch.no_grad()
def execute(
    model: EditableModel, batch: Batch, residuals: Tensor, moments: dict[int, Tensor], s: RidgeSpec
) -> dict[int, Tensor]:
    """MEMIT's solve, written into the weights layer by layer; layer -> change, weights as before again.

    Args:
        moments: layer -> C, of all edited layers, ascending.
    """
    rows, layers = list(batch.lookup_rows), list(moments)
    top = layers[-1]
    bare = rows[:: batch.templates]
    goal = _at(model, bare, model.blocks[top], inputs=False) + residuals
    originals, changes = {}, {}
    for i, layer in enumerate(layers):
        keys = _at(model, rows, model.down(layer), inputs=True).reshape(len(bare), batch.templates, -1)
        key = keys[:, 0] if batch.templates == 1 else (keys[:, 0] + keys[:, 1:].mean(1)) / 2
        rest = goal - _at(model, bare, model.blocks[top], inputs=False)
        K, C = key.T.double(), moments[layer].to(key.device).double()
        G = s.lam * C + s.jitter * s.lam * C.trace() * torch.eye(len(C), device=C.device, dtype=C.dtype)
        adjoint = torch.linalg.solve(G + K @ K.T, K)
        changes[layer] = (rest.T.double() / (len(layers) - i)) @ adjoint.T
        originals[layer] = model.weight(layer).clone()
        model.weight(layer).add_(changes[layer].to(originals[layer]))
    for layer, weight in originals.items():
        model.weight(layer).copy_(weight)
    return changes
