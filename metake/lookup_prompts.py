"""Prompts up to their lookup tokens: the input of the solver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from metake.key_estimators import BareAndContexts, KeyEstimator
from metake.models.editable import EditableModel
from metake.models.kv_cache import KVCache
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import pad
from metake.models.trace import run
from metake.prompts import Batch


@dataclass(frozen=True)
class LookupPrompts:
    """Prompts of a batch up to the lookup token, with the residual stream before the first edited block.

    Attributes:
        tokens: the rows; those of a request are adjacent, the bare prompt first, which has no shared prefix.
        last: `n templates`, position of each lookup token within its row's suffix; see `Batch.lookup_positions`.
        hidden: residual stream before block `start`.
        start: first edited block.
        templates: number of rows of a request.
        estimator: average of a request's keys over its rows.
        cache: KV cache of the tokens before the lookup token, where these are constant; see `resumed`.
        rows: `n templates`, row of each lookup token; by default every row has one.
        preserved: row and column of the bare rows' tokens whose keys the solve preserves; None for no such tokens.
        constant: layer -> further keys that the solve preserves, `p x d_k`, whatever the updates of lower layers are.
    """

    tokens: PrefixBatch
    last: Tensor
    hidden: PrefixSuffix
    start: int
    templates: int
    estimator: KeyEstimator
    cache: KVCache | None = None
    rows: Tensor | None = None
    preserved: tuple[Tensor, Tensor] | None = None
    constant: Mapping[int, Tensor] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def build(
        cls,
        model: EditableModel,
        batch: Batch,
        start: int,
        estimator: KeyEstimator | None = None,
        preserve: bool = False,
    ) -> LookupPrompts:
        """Prompts of a batch, and one pass up to block `start`.

        Args:
            model: the model.
            batch: token rows of the requests.
            start: first edited block.
            estimator: average of a request's keys; by default `BareAndContexts`.
            preserve: whether the keys of all other tokens of prompt and answer are preserved.

        Returns:
            The prompts with the stream of the model as it is.
        """
        rows, count = list(batch.lookup_rows), len(batch.requests)
        if preserve:
            rows[:: batch.templates] = batch.edits[:: batch.templates]
        lengths = [len(row) for row in rows]
        prefixes = batch.prefix_lengths if model.can_resume(max(lengths)) else (0,) * batch.templates
        tokens = PrefixBatch.of(
            pad(rows).to(model.device), lengths, prefixes * count, list(range(batch.templates)) * count
        )
        hidden = tokens.run(model, stop=start, inputs=(start,)).inputs[start]
        at, columns = batch.lookup_positions
        last = columns - tokens.prefix_lengths[at]
        others = other_tokens(batch) if preserve else None
        return cls(
            tokens,
            last,
            hidden,
            start,
            batch.templates,
            estimator or BareAndContexts(),
            rows=at,
            preserved=others,
        )

    @torch.no_grad()
    def resumed(self, model: EditableModel, batch: Batch, top: int) -> LookupPrompts:
        """Prompts of the lookup tokens alone; the tokens before them are constant, as in the model as it is.

        Args:
            model: the model.
            batch: the batch of these prompts.
            top: last block that passes run through.

        Returns:
            Rows of one token with a KV cache; the prompts themselves for a model that cannot resume such rows, and for
            answers of several windows, whose later keys depend on the tokens between them.
        """
        rows = batch.lookup_rows
        lookups = torch.tensor([row.lookup for row in rows])
        several = batch.size > len(batch.requests) or self.preserved is not None
        if several or not model.can_resume(int(lookups.max()) + 1):
            return self
        ids = pad(rows).to(model.device)
        trace = run(model, ids, stop=top, inputs=(self.start,), record_from=self.start)
        most = int(lookups.max())
        known = {n: (k[:, :, :most], v[:, :, :most]) for n, (k, v) in trace.key_values.items()}
        at = torch.arange(len(rows)), lookups
        single = ids[at][:, None]
        tokens = PrefixBatch.of(single, [1] * len(rows), [0] * len(rows), [0] * len(rows))
        hidden = PrefixSuffix(trace.inputs[self.start][at][:, None])
        cache = KVCache(known, lookups) if most else None
        return replace(self, tokens=tokens, last=torch.zeros_like(lookups), hidden=hidden, cache=cache)

    @property
    def without_preserved(self) -> LookupPrompts:
        """The same prompts, of whose keys none is preserved."""
        return replace(self, preserved=None, constant={})

    @cached_property
    def bare_cache(self) -> KVCache | None:
        """KV cache of the bare prompts; None without one."""
        if self.cache is None:
            return None
        return self.cache.rows(torch.arange(0, len(self.last), self.templates))

    def at_lookup(self, stream: Tensor) -> Tensor:
        """Values at the lookup tokens, `n templates x d`.

        Args:
            stream: values of the suffixes, `rows x width x d`.

        Returns:
            One value per window and template.
        """
        return pick_tokens(self.last, stream, self.rows)

    @cached_property
    def bare_positions(self) -> tuple[Tensor, Tensor]:
        """Row and column of each window's lookup token in the bare rows, `n` each."""
        last = self.bare(self.last)
        return torch.arange(len(last)) if self.rows is None else self.bare(self.rows) // self.templates, last

    def at_bare_lookup(self, stream: Tensor) -> Tensor:
        """Values at the lookup tokens of the bare prompts, `n x d`.

        Args:
            stream: values of the bare rows, `requests x length x d`.

        Returns:
            One value per window.
        """
        rows, last = self.bare_positions
        return pick_tokens(last, stream, rows)

    def preserved_keys(self, layer: int, keys: Tensor) -> Tensor | None:
        """Keys that the solve of a layer preserves, `p x d_k`; None if there are none.

        Args:
            layer: the layer.
            keys: its keys of the suffixes, `rows x width x d_k`.

        Returns:
            Keys of the other tokens of the bare prompts with their answers.
        """
        if self.preserved is None:
            return self.constant.get(layer)
        rows, columns = self.preserved
        return pick_tokens(columns, keys, rows)

    def mean_key(self, keys: Tensor) -> Tensor:
        """Key of each window, `n x d_k`.

        Args:
            keys: keys at the lookup tokens, `n templates x d_k`.

        Returns:
            The estimator's averages.
        """
        return self.estimator.estimate(keys.reshape(-1, self.templates, keys.shape[-1]))

    def key_cosine(self, keys: Tensor) -> Tensor:
        """Cosine of each bare prompt's key with the mean key of its contexts, `requests`; 1 without contexts.

        Near 0 the two are different keys, and an edit at their mean does not change the bare prompt: the token is an
        attention sink there, or the subject has other tokens than after a space.

        Args:
            keys: keys at the lookup tokens, `rows x d_k`.

        Returns:
            Values between -1 and 1.

        Reference: arXiv:2406.11263, on edits at such keys that collapse models.
        """
        grouped = keys.reshape(-1, self.templates, keys.shape[-1])
        if self.templates == 1:
            return torch.ones(len(grouped))
        return torch.cosine_similarity(grouped[:, 0], grouped[:, 1:].mean(1), dim=1).cpu()

    def bare(self, values: Tensor) -> Tensor:
        """Values of the bare prompts, `requests x ...`.

        Args:
            values: values of all rows, `rows x ...`.

        Returns:
            Every request's first row.
        """
        return values[:: self.templates]

    def bare_rows(self, hidden: PrefixSuffix) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, lookup positions and stream of the bare prompts, up to the last lookup token.

        Args:
            hidden: residual stream of all rows.

        Returns:
            Ids, `requests x length`; positions, `requests`; stream, `requests x length x d_v`.
        """
        last = self.bare(self.last)
        length = int(last.max()) + 1
        return self.bare(self.tokens.ids.suffix)[:, :length], last, self.bare(hidden.suffix)[:, :length]


def other_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """Row and column of all tokens of the bare rows that do not have the key of a lookup token.

    Args:
        batch: the batch.

    Returns:
        Two tensors, one entry per token. Lookup tokens have such a key, and tokens up to which a row equals another one up
        to its lookup token.
    """
    bare = batch.edits[:: batch.templates]
    edited = {row.ids[: lookup + 1] for row in bare for lookup in row.lookups}
    at = [
        (i * batch.templates, column)
        for i, row in enumerate(bare)
        for column in range(len(row))
        if row.ids[: column + 1] not in edited
    ]
    rows, columns = torch.tensor(at, dtype=torch.long).reshape(-1, 2).T
    return rows, columns


def pick_tokens(positions: Tensor, stream: Tensor, rows: Tensor | None = None) -> Tensor:
    """Values at some positions, `positions x d`.

    Args:
        positions: columns.
        stream: `rows x length x d`.
        rows: row of each position; by default one position per row.

    Returns:
        One value per position.
    """
    rows = torch.arange(len(positions)) if rows is None else rows
    return stream[rows.to(stream.device), positions.to(stream.device)]
