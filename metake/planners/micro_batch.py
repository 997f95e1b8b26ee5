"""Micro-batches of an objective: rows that run in one pass, and the positions at which they are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from metake.models.kv_cache import KVCache
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.trace import upcast
from metake.planners.end_loss import EndLoss
from metake.prompts import RowSpec


@dataclass(frozen=True)
class ScoredPositions:
    """Positions of a pass at which rows are scored: `a` answer tokens, `g` lookup tokens of KL prompts, `e` ends.

    Attributes:
        positions: row and column of each position, `a + g + e` each.
        labels: `a` token ids.
        answer_weights: `a`, weight of each answer token in its window's mean.
        owners: `a + g`, window of each position.
        kl_weights: `g`, weight of each KL prompt in its request's mean.
        reference: `g x vocabulary`, unedited log-probabilities.
        end: loss of what follows each answer; None if it is not scored.
    """

    positions: tuple[Tensor, Tensor]
    labels: Tensor
    answer_weights: Tensor
    owners: Tensor
    kl_weights: Tensor
    reference: Tensor
    end: EndLoss | None = None

    def like(self, logits: Tensor) -> ScoredPositions:
        """Positions on the device of some logits, with weights and reference in their precision, at least fp32.

        Args:
            logits: `(a + g + e) x vocabulary`.

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
            None if self.end is None else self.end.like(logits),
        )

    def losses(self, logits: Tensor, size: int, kl_from_unedited: bool) -> tuple[Tensor, Tensor, Tensor]:
        """NLL, KL divergence and loss of the end of each window.

        Args:
            logits: `(a + g + e) x vocabulary`, at the positions.
            size: number of windows.
            kl_from_unedited: KL(unedited || edited) instead of KL(edited || unedited).

        Returns:
            Three tensors of shape `size`; the last is 0 if ends are not scored.
        """
        scores = upcast(logits).log_softmax(-1)
        answers, ends = len(self.labels), len(scores) - len(self.end or ())
        scores, after = scores[:ends], scores[ends:]
        chosen = -scores[:answers].gather(1, self.labels[:, None])[:, 0]
        nll = scores.new_zeros(size).index_add(0, self.owners[:answers], chosen * self.answer_weights)
        kl = scores.new_zeros(size)
        if answers < len(scores):
            now, then = scores[answers:], self.reference
            a, b = (then, now) if kl_from_unedited else (now, then)
            divergence = (a.exp() * (a - b)).sum(-1)
            kl = kl.index_add(0, self.owners[answers:], divergence * self.kl_weights)
        if self.end is None:
            return nll, kl, torch.zeros_like(nll)
        return nll, kl, self.end.losses(chosen, after, size)


@dataclass(eq=False)
class MicroBatch:
    """Rows of one pass, with what is constant of their activations.

    Attributes:
        specs: row and role of each.
        tokens: shared prefixes and suffixes of the rows.
        above: stream after the last edited block.
        below: stream before the first edited block; None if only what follows the last one runs.
        gates: `rows x length`, or `rows x length x n` if a row receives several residuals: their factor at each token.
        reference: unedited log-probabilities at the lookup token of each KL prompt, in their order.
        templates: number of templates of a request.
        kl_counts: number of KL prompts of each request.
        cache: KV cache of the tokens before the suffixes, if these do not change.
        ends: tokens that end an answer.
    """

    specs: Sequence[RowSpec]
    tokens: PrefixBatch
    above: PrefixSuffix
    below: PrefixSuffix | None
    gates: PrefixSuffix
    reference: Sequence[Tensor]
    templates: int
    kl_counts: Sequence[int]
    cache: KVCache | None = None
    ends: Tensor | None = None
    _active: Tensor | None = field(default=None, init=False, repr=False)
    _selected: MicroBatch | None = field(default=None, init=False, repr=False)

    @cached_property
    def owners(self) -> Tensor:
        """`rows`, index of the first window of each row's request."""
        return torch.tensor([spec.owner for spec in self.specs])

    @cached_property
    def _ends(self) -> Tensor:
        """`rows`, index after the last window of each row."""
        return torch.tensor([spec.windows.stop for spec in self.specs])

    def rows(self, keep: Tensor) -> MicroBatch:
        """Micro-batch of some rows.

        Args:
            keep: indices of the rows, ascending.

        Returns:
            A micro-batch with `len(keep)` rows.
        """
        kept = set(keep.tolist())
        kl_rows = [i for i, spec in enumerate(self.specs) if spec.template is None]
        return replace(
            self,
            specs=[self.specs[i] for i in keep],
            tokens=self.tokens.rows(keep),
            above=self.above.rows(keep),
            below=None if self.below is None else self.below.rows(keep),
            gates=self.gates.rows(keep),
            reference=[known for i, known in zip(kl_rows, self.reference, strict=True) if i in kept],
            cache=None if self.cache is None else self.cache.rows(keep),
        )

    def select(self, active: Tensor) -> MicroBatch | None:
        """Rows with an active window; they are stored until these change.

        Args:
            active: `n` flags of windows.

        Returns:
            None if the micro-batch has no row with an active window.
        """
        before = torch.cat([torch.zeros(1, dtype=torch.long), active.cumsum(0)])
        flags = before[self._ends] > before[self.owners]
        if self._active is None or not torch.equal(flags, self._active):
            keep = flags.nonzero()[:, 0]
            self._active, self._selected = flags, None
            if len(keep):
                self._selected = replace(self) if bool(flags.all()) else self.rows(keep)
        return self._selected

    def shifted(self, residuals: Tensor, by_row: bool = False) -> PrefixSuffix:
        """Stream after the last edited block plus the gated residuals.

        Args:
            residuals: `n x d_v`.
            by_row: whether there is a residual per row, `rows x d_v`, instead.

        Returns:
            Shape and dtype of `above`; the sum is formed in fp32 at least.
        """
        moved = residuals.to(self.gates.suffix)

        def add(above: Tensor, gates: Tensor) -> Tensor:
            joint = gates.ndim == 3
            if joint:
                shift = gates @ moved
            else:
                shift = gates[..., None] * (moved if by_row else moved[self.owners])[:, None]
            return (upcast(above) + shift).to(above.dtype)

        prefix = None
        if self.above.prefix is not None and self.gates.prefix is not None:
            prefix = add(self.above.prefix, self.gates.prefix)
        return PrefixSuffix(add(self.above.suffix, self.gates.suffix), prefix)

    @cached_property
    def scored(self) -> ScoredPositions:
        """Positions at which the rows are scored."""
        begins = self.tokens.prefix_lengths.tolist()
        answers = [
            (i, spec.row.predicting[at] - begins[i], spec.row.answer_ids[at], window, len(span))
            for i, spec in enumerate(self.specs)
            if spec.template is not None
            for window, span in zip(spec.windows, spec.row.spans, strict=True)
            for at in span
        ]
        kept = [
            (i, spec.row.lookup - begins[i], spec)
            for i, spec in enumerate(self.specs)
            if spec.template is None
        ]
        ended = [(i, len(spec.row) - 1 - begins[i]) for i, spec in enumerate(self.specs) if spec.scores_end]
        where = torch.tensor([position[:2] for position in (*answers, *kept, *ended)])
        return ScoredPositions(
            (where[:, 0], where[:, 1]),
            torch.tensor([token for _, _, token, *_ in answers], dtype=torch.long),
            torch.tensor([1 / (length * self.templates) for *_, length in answers], dtype=torch.float64),
            torch.tensor([window for *_, window, _ in answers] + [spec.owner for *_, spec in kept]),
            torch.tensor([1 / self.kl_counts[spec.owner] for *_, spec in kept], dtype=torch.float64),
            torch.stack(list(self.reference)) if kept else torch.empty(0),
            self._end_loss([i for i, *_ in answers], [i for i, _ in ended]),
        )

    def _end_loss(self, answers: Sequence[int], ended: Sequence[int]) -> EndLoss | None:
        """Loss of the ends of rows `ended`; `answers` has the row of every answer token."""
        if self.ends is None or not ended:
            return None
        return EndLoss(
            self.ends,
            torch.tensor([ended.index(i) for i in answers]),
            torch.tensor([self.specs[i].windows[-1] for i in ended]),
            torch.full((len(ended),), 1 / self.templates, dtype=torch.float64),
        )

    def losses(self, logits: Tensor, size: int, kl_from_unedited: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of each window; see `ScoredPositions.losses`.

        Args:
            logits: `(a + g + e) x vocabulary`, at the scored positions.
            size: number of windows.
            kl_from_unedited: direction of KL.

        Returns:
            Three tensors of shape `size`.
        """
        self.scored = self.scored.like(logits)  # stays on the device of the logits
        return self.scored.losses(logits, size, kl_from_unedited)
