"""The losses of a batch as functions of its residuals, with everything constant computed once.

Whatever a target does to the model happens at the last edited layer or below, so the stream after
that layer is the only input of the rest. A residual r enters it as

    h_t + gate_t r

at position t. The open loop writes at the lookup token alone (gate 1 there, 0 elsewhere); the
structural proxy (7) writes through the channel, gate_t = q . k_t, at every token, which is the
virtual weight W + r q^T without ever forming it. So both cost one pass through the upper blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from metake.models.architecture import Architecture
from metake.models.tokens import Row, answer_positions, chunks, pad
from metake.models.trace import run, wide
from metake.prompts import Batch

Gate = Literal["token", "channel"]


@dataclass
class _Chunk:
    """Rows that run together; all tensors share the first dimension unless noted."""

    ids: Tensor
    owners: Tensor
    below: Tensor  # stream before the first edited block
    above: Tensor  # stream after the last edited block
    token: Tensor  # open-loop gate, rows x length
    channel: Tensor | None  # proxy gates, rows x length, or rows x length x n if joint
    rows: list[Row]
    guarded: list[bool]
    reference: dict[int, Tensor]  # row -> unedited log-probabilities where it is watched


@dataclass(frozen=True)
class Losses:
    """Per request: `nll`, mean over answer tokens and contexts (11); `kl`, mean over guards (12)."""

    nll: Tensor
    kl: Tensor


class Objective:
    """Losses of `batch` for residuals at layer `top`, open loop, through the proxy, or executed.

    Args:
        first, top: first and last edited layer.
        channel: Q at `top`, `d_k x n`; needed for the proxy.
        joint: every row feels every request's residual, not only its owner's (X8).
        max_tokens: padded tokens per pass.
    """

    def __init__(
        self,
        arch: Architecture,
        batch: Batch,
        first: int,
        top: int,
        *,
        channel: Tensor | None = None,
        joint: bool = True,
        max_tokens: int = 4096,
    ) -> None:
        self.arch, self.first, self.top = arch, first, top
        self.size = len(batch.requests)
        self.templates = batch.templates
        owners = [*batch.owners.tolist(), *(guard.owner for guard in batch.guards)]
        self.guards = torch.bincount(
            torch.tensor([guard.owner for guard in batch.guards]), minlength=self.size
        ).clamp_min(1)
        rows = [*batch.edits, *(guard.row for guard in batch.guards)]
        marked = [True] * len(batch.edits) + [guard.marked for guard in batch.guards]
        self.chunks = [
            self._prepare(
                [rows[i] for i in group],
                torch.tensor([owners[i] for i in group]),
                [i >= len(batch.edits) for i in group],
                torch.tensor([marked[i] for i in group]),
                channel,
                joint,
            )
            for group in chunks(rows, max_tokens)
        ]

    @torch.no_grad()
    def _prepare(
        self,
        rows: list[Row],
        owners: Tensor,
        guarded: list[bool],
        marked: Tensor,
        channel: Tensor | None,
        joint: bool,
    ) -> _Chunk:
        ids = pad(rows)
        watched = [i for i, guard in enumerate(guarded) if guard]
        places = torch.tensor(watched), torch.tensor([rows[i].lookup for i in watched])
        trace = run(
            self.arch, ids, keys=(self.top,), inputs=(self.first,), outputs=(self.top,),
            stop=None if watched else self.top, positions=places if watched else None,
        )  # fmt: skip
        reference = {}
        if watched:
            reference = dict(zip(watched, wide(trace.logits).log_softmax(-1), strict=True))
        above = trace.outputs[self.top]
        token = torch.zeros(ids.shape, device=above.device, dtype=wide(above).dtype)
        lookups = torch.tensor([row.lookup for row in rows])
        token[torch.arange(len(rows)), lookups] = marked.to(token.device, token.dtype)
        gates = None
        if channel is not None:
            keys = wide(trace.keys[self.top])
            q = channel.to(keys)
            gates = keys @ q if joint else torch.einsum("btk,kb->bt", keys, q[:, owners])
            gates = gates.to(above.device)
        return _Chunk(ids, owners, trace.inputs[self.first], above, token, gates, rows, guarded, reference)

    def losses(
        self,
        residuals: Tensor,
        gate: Gate,
        active: Tensor,
        *,
        kl_weight: float = 0.0,
        initial_first: bool = False,
        backward: bool = False,
    ) -> Losses:
        """Losses with `residuals` (`n x d_v`) written virtually at `top`.

        Args:
            active: `n` flags; rows of other requests are left out (their losses are 0).
            initial_first: KL(unedited || edited) as in (12), instead of MEMIT's
                KL(edited || unedited).
            backward: add the gradient of `sum(nll + kl_weight kl)` to `residuals.grad`.
        """

        def logits(chunk: _Chunk, keep: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
            above, owners = chunk.above[keep], chunk.owners[keep]
            gates = chunk.token if gate == "token" else chunk.channel
            if gates is None:
                raise ValueError("the proxy needs a channel")
            gates, moved = gates[keep], residuals.to(gates)
            shift = gates @ moved if gates.ndim == 3 else gates[..., None] * moved[owners][:, None]
            hidden = (wide(above) + shift).to(above.dtype)
            return run(self.arch, chunk.ids[keep], start=self.top + 1, hidden=hidden, positions=places).logits

        return self._sum(logits, active, kl_weight, initial_first, backward)

    def executed(
        self,
        factors: Mapping[int, tuple[Tensor, Tensor]],
        active: Tensor | None = None,
        *,
        kl_weight: float = 0.0,
        initial_first: bool = False,
        backward: bool = False,
    ) -> Losses:
        """Losses with the updates of a whole solve (layer -> (left, right)), as the user gets them.

        Args:
            active, kl_weight, initial_first: as in `losses`.
            backward: add the gradient of `sum(nll + kl_weight kl)` to the factors' `grad`.
        """

        def logits(chunk: _Chunk, keep: Tensor, places: tuple[Tensor, Tensor]) -> Tensor:
            return run(
                self.arch, chunk.ids[keep], start=self.first, hidden=chunk.below[keep],
                edits=factors, positions=places,
            ).logits  # fmt: skip

        everyone = torch.ones(self.size, dtype=torch.bool)
        active = everyone if active is None else active
        with torch.set_grad_enabled(backward):
            return self._sum(logits, active, kl_weight, initial_first, backward)

    def _sum(
        self, logits_of, active: Tensor, kl_weight: float, initial_first: bool, backward: bool
    ) -> Losses:
        nll, kl = torch.zeros(self.size), torch.zeros(self.size)
        active = active.cpu()
        for chunk in self.chunks:
            keep = active[chunk.owners].nonzero()[:, 0]
            if len(keep) == 0:
                continue
            kept = [chunk.rows[i] for i in keep]
            at_rows, at_columns, labels = answer_positions(kept)
            watched = [j for j, i in enumerate(keep.tolist()) if chunk.guarded[i]]
            places = (
                torch.cat([at_rows, torch.tensor(watched, dtype=torch.long)]),
                torch.cat([at_columns, torch.tensor([kept[j].lookup for j in watched], dtype=torch.long)]),
            )
            scores = wide(logits_of(chunk, keep, places)).log_softmax(-1)
            owners = chunk.owners[keep]
            chosen = -scores[: len(labels)].gather(1, labels.to(scores.device)[:, None])[:, 0]
            lengths = torch.tensor([max(row.answer, 1) for row in kept])
            share = 1 / (lengths[at_rows] * self.templates).to(scores)
            part_nll = scores.new_zeros(self.size).index_add(
                0, owners[at_rows].to(scores.device), chosen * share
            )
            part_kl = scores.new_zeros(self.size)
            if watched:
                now = scores[len(labels) :]
                then = torch.stack([chunk.reference[int(keep[j])] for j in watched])
                a, b = (then, now) if initial_first else (now, then)
                divergence = (a.exp() * (a - b)).sum(-1)
                whose = owners[watched]
                part_kl = part_kl.index_add(
                    0, whose.to(scores.device), divergence / self.guards[whose].to(scores)
                )
            if backward:
                (part_nll + kl_weight * part_kl).sum().backward()
            nll = nll + part_nll.detach().cpu()
            kl = kl + part_kl.detach().cpu()
        return Losses(nll, kl)
