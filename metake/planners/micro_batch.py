"""Micro-batches of an objective: rows that run in one pass, and the positions at which they are scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metake.models.kv_cache import KVCache
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import Row
from metake.models.trace import upcast


@dataclass(frozen=True)
class RowSpec:
    """A token row and its role in the objective.

    Attributes:
        row: tokens of the row.
        owner: index of its request.
        guard: whether the row is a KL prompt, whose prediction is preserved.
        written: whether an open-loop plan writes at its lookup token.
        template: the template of an edit's row, -1 for KL prompts.
    """

    row: Row
    owner: int
    guard: bool
    written: bool
    template: int = -1


@dataclass(frozen=True)
class ScoredPositions:
    """Positions of a pass at which rows are scored: `a` answer tokens, then `g` lookup tokens of KL prompts.

    Attributes:
        positions: row and column of each position, `a + g` each.
        labels: `a` token ids.
        answer_weights: `a`, weight of each answer token in its request's mean.
        owners: `a + g`, request of each position.
        kl_weights: `g`, weight of each KL prompt in its request's mean.
        reference: `g x vocabulary`, unedited log-probabilities.
    """

    positions: tuple[Tensor, Tensor]
    labels: Tensor
    answer_weights: Tensor
    owners: Tensor
    kl_weights: Tensor
    reference: Tensor

    def like(self, logits: Tensor) -> ScoredPositions:
        """Positions on the device of some logits, with weights and reference in their precision, at least fp32.

        Args:
            logits: `(a + g) x vocabulary`.

        Returns:
            The positions themselves if nothing changes.
        """
        if self.labels.device == logits.device and self.answer_weights.dtype == upcast(logits).dtype:
            return self
        near, scores = logits.device, upcast(logits)
        positions = self.positions[0].to(near), self.positions[1].to(near)
        return ScoredPositions(
            positions,
            self.labels.to(near),
            self.answer_weights.to(scores),
            self.owners.to(near),
            self.kl_weights.to(scores),
            self.reference.to(scores),
        )

    def losses(self, logits: Tensor, size: int, initial_first: bool) -> tuple[Tensor, Tensor]:
        """NLL and KL divergence of each request.

        Args:
            logits: `(a + g) x vocabulary`, at the positions.
            size: number of requests.
            initial_first: KL(unedited || edited) instead of KL(edited || unedited).

        Returns:
            Two tensors of shape `size`.
        """
        scores = upcast(logits).log_softmax(-1)
        answers = len(self.labels)
        chosen = -scores[:answers].gather(1, self.labels[:, None])[:, 0]
        nll = scores.new_zeros(size).index_add(0, self.owners[:answers], chosen * self.answer_weights)
        kl = scores.new_zeros(size)
        if answers < len(scores):
            now, then = scores[answers:], self.reference
            a, b = (then, now) if initial_first else (now, then)
            divergence = (a.exp() * (a - b)).sum(-1)
            kl = kl.index_add(0, self.owners[answers:], divergence * self.kl_weights)
        return nll, kl


@dataclass(frozen=True)
class BatchedRows:
    """Rows of one pass, with what is constant of their activations.

    Attributes:
        tokens: shared prefixes and suffixes of the rows.
        owners: request of each row.
        above: stream after the last edited block.
        below: stream before the first edited block; None if only what follows the last one runs.
        gates: `rows x length`, or `rows x length x n` if joint: factor of the residual at each token.
        cache: KV cache of the tokens before the suffixes, if these do not change.
    """

    tokens: PrefixBatch
    owners: Tensor
    above: PrefixSuffix
    below: PrefixSuffix | None
    gates: PrefixSuffix
    cache: KVCache | None = None

    def __getitem__(self, keep: Tensor) -> BatchedRows:
        below = None if self.below is None else self.below.rows(keep)
        cache = None if self.cache is None else self.cache.rows(keep)
        return BatchedRows(
            self.tokens.rows(keep),
            self.owners[keep],
            self.above.rows(keep),
            below,
            self.gates.rows(keep),
            cache,
        )

    def shifted(self, residuals: Tensor) -> PrefixSuffix:
        """Stream after the last edited block plus the gated residuals.

        Args:
            residuals: `n x d_v`.

        Returns:
            Shape and dtype of `above`; the sum is formed in fp32 at least.
        """
        moved = residuals.to(self.gates.suffix)

        def add(above: Tensor, gates: Tensor) -> Tensor:
            joint = gates.ndim == 3
            shift = gates @ moved if joint else gates[..., None] * moved[self.owners][:, None]
            return (upcast(above) + shift).to(above.dtype)

        prefix = None
        if self.above.prefix is not None and self.gates.prefix is not None:
            prefix = add(self.above.prefix, self.gates.prefix)
        return PrefixSuffix(add(self.above.suffix, self.gates.suffix), prefix)


@dataclass
class MicroBatch:
    """Rows of one pass; those of the requests that are still active are stored until these change.

    Attributes:
        specs: spec of each row.
        rows: all rows.
        reference: row -> unedited log-probabilities at its lookup token, for KL prompts.
        templates: number of templates of a request.
        guards: number of KL prompts of each request.
        active: flags of the rows in `active_rows`.
        active_rows: rows of active requests.
        scored: positions at which `active_rows` are scored.
    """

    specs: list[RowSpec]
    rows: BatchedRows
    reference: dict[int, Tensor]
    templates: int
    guards: list[int]
    active: Tensor | None = None
    active_rows: BatchedRows | None = None
    scored: ScoredPositions | None = None

    def select(self, active: Tensor) -> tuple[BatchedRows, ScoredPositions] | None:
        """Rows of the active requests, and their scored positions.

        Args:
            active: `n` flags of requests.

        Returns:
            None if the micro-batch has no row of an active request.
        """
        rows_active = active[self.rows.owners]
        if self.active is None or not torch.equal(rows_active, self.active):
            keep = rows_active.nonzero()[:, 0]
            self.active, self.active_rows, self.scored = rows_active, None, None
            if len(keep):
                self.active_rows = self.rows if bool(rows_active.all()) else self.rows[keep]
                self.scored = self._score_positions(keep, self.active_rows)
        return None if self.active_rows is None or self.scored is None else (self.active_rows, self.scored)

    def _score_positions(self, keep: Tensor, rows: BatchedRows) -> ScoredPositions:
        specs, begins = [self.specs[i] for i in keep], rows.tokens.prefix_lengths.tolist()
        answers = [
            (i, at - begins[i], token, spec)
            for i, spec in enumerate(specs)
            if not spec.guard
            for at, token in zip(spec.row.predicting, spec.row.answer_ids, strict=True)
        ]
        guards = [(i, spec.row.lookup - begins[i], spec) for i, spec in enumerate(specs) if spec.guard]
        where = torch.tensor([position[:2] for position in (*answers, *guards)])
        return ScoredPositions(
            (where[:, 0], where[:, 1]),
            torch.tensor([token for *_, token, _ in answers], dtype=torch.long),
            torch.tensor(
                [1 / (spec.row.answer * self.templates) for *_, spec in answers], dtype=torch.float64
            ),
            torch.tensor([spec.owner for *_, spec in answers] + [spec.owner for *_, spec in guards]),
            torch.tensor([1 / self.guards[spec.owner] for *_, spec in guards], dtype=torch.float64),
            torch.stack([self.reference[int(keep[i])] for i, *_ in guards]) if guards else torch.empty(0),
        )
