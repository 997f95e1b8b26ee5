"""The rows of an objective: what each is for, where it is watched, and those that run together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metake.models.kv_cache import KVCache
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import Row
from metake.models.trace import upcast


@dataclass(frozen=True)
class Kind:
    """What a row is for.

    Attributes:
        owner: the request it belongs to.
        guard: whether its prediction shall stay as it is.
        marked: whether an open-loop plan writes at its lookup token.
        template: the template of an edit's row, -1 for guards.
    """

    row: Row
    owner: int
    guard: bool
    marked: bool
    template: int = -1


@dataclass(frozen=True)
class Watch:
    """Where the rows of a pass are watched: at all answer tokens, then at the guards."""

    places: tuple[Tensor, Tensor]
    labels: Tensor
    shares: Tensor  # of each answer token in its request's mean
    owners: Tensor  # of each place
    weights: Tensor  # of each guard in its request's mean
    reference: Tensor  # guards x vocabulary, unedited log-probabilities

    def like(self, logits: Tensor) -> Watch:
        """Where, and as precise as, the logits are."""
        if self.labels.device == logits.device and self.shares.dtype == upcast(logits).dtype:
            return self
        near, scores = logits.device, upcast(logits)
        places = self.places[0].to(near), self.places[1].to(near)
        return Watch(
            places,
            self.labels.to(near),
            self.shares.to(scores),
            self.owners.to(near),
            self.weights.to(scores),
            self.reference.to(scores),
        )

    def losses(self, logits: Tensor, size: int, initial_first: bool) -> tuple[Tensor, Tensor]:
        """Sums over the rows of each of `size` requests."""
        scores = upcast(logits).log_softmax(-1)
        answers = len(self.labels)
        chosen = -scores[:answers].gather(1, self.labels[:, None])[:, 0]
        nll = scores.new_zeros(size).index_add(0, self.owners[:answers], chosen * self.shares)
        kl = scores.new_zeros(size)
        if answers < len(scores):
            now, then = scores[answers:], self.reference
            a, b = (then, now) if initial_first else (now, then)
            divergence = (a.exp() * (a - b)).sum(-1)
            kl = kl.index_add(0, self.owners[answers:], divergence * self.weights)
        return nll, kl


@dataclass(frozen=True)
class Rows:
    """Rows that run together; all parts are of the same split."""

    tokens: PrefixBatch
    owners: Tensor
    above: PrefixSuffix  # stream after the last edited block
    below: PrefixSuffix | None  # stream before the first
    gates: PrefixSuffix  # rows x length, or rows x length x n if joint
    cache: KVCache | None = None  # what stands before the rows' own tokens and never changes

    def __getitem__(self, keep: Tensor) -> Rows:
        below = None if self.below is None else self.below.rows(keep)
        cache = None if self.cache is None else self.cache.rows(keep)
        return Rows(
            self.tokens.rows(keep),
            self.owners[keep],
            self.above.rows(keep),
            below,
            self.gates.rows(keep),
            cache,
        )

    def shifted(self, residuals: Tensor) -> PrefixSuffix:
        """The stream after the last edited block with the residuals in it."""
        moved = residuals.to(self.gates.suffix)

        def add(above: Tensor, gates: Tensor) -> Tensor:
            joint = gates.ndim == 3
            shift = gates @ moved if joint else gates[..., None] * moved[self.owners][:, None]
            return (upcast(above) + shift).to(above.dtype)

        common = None
        if self.above.prefix is not None and self.gates.prefix is not None:
            common = add(self.above.prefix, self.gates.prefix)
        return PrefixSuffix(add(self.above.suffix, self.gates.suffix), common)


@dataclass
class Chunk:
    """A chunk with all its rows, and with those of the requests that are still active."""

    kinds: list[Kind]
    rows: Rows
    reference: dict[int, Tensor]  # row -> unedited log-probabilities where it is watched
    templates: int
    guards: list[int]  # per request
    asked: Tensor | None = None
    kept: Rows | None = None
    watch: Watch | None = None

    def take(self, active: Tensor) -> tuple[Rows, Watch] | None:
        """Rows of the active requests, None if there are none; kept until other requests are asked for."""
        mine = active[self.rows.owners]
        if self.asked is None or not torch.equal(mine, self.asked):
            keep = mine.nonzero()[:, 0]
            self.asked, self.kept, self.watch = mine, None, None
            if len(keep):
                self.kept = self.rows if bool(mine.all()) else self.rows[keep]
                self.watch = self._watch(keep, self.kept)
        return None if self.kept is None or self.watch is None else (self.kept, self.watch)

    def _watch(self, keep: Tensor, rows: Rows) -> Watch:
        kinds, begins = [self.kinds[i] for i in keep], rows.tokens.prefix_lengths.tolist()
        answers = [
            (i, at - begins[i], token, kind)
            for i, kind in enumerate(kinds)
            if not kind.guard
            for at, token in zip(kind.row.predicting, kind.row.answer_ids, strict=True)
        ]
        guards = [(i, kind.row.lookup - begins[i], kind) for i, kind in enumerate(kinds) if kind.guard]
        where = torch.tensor([place[:2] for place in (*answers, *guards)])
        return Watch(
            (where[:, 0], where[:, 1]),
            torch.tensor([token for *_, token, _ in answers], dtype=torch.long),
            torch.tensor(
                [1 / (kind.row.answer * self.templates) for *_, kind in answers], dtype=torch.float64
            ),
            torch.tensor([kind.owner for *_, kind in answers] + [kind.owner for *_, kind in guards]),
            torch.tensor([1 / self.guards[kind.owner] for *_, kind in guards], dtype=torch.float64),
            torch.stack([self.reference[int(keep[i])] for i, *_ in guards]) if guards else torch.empty(0),
        )
