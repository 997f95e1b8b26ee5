"""Batches whose rows share prefixes: every prefix is run once, and the suffixes of its rows attend to it.

The requests of a batch are planned in the same few contexts, which are most of the tokens of a pass. Virtual edits
apply to prefix tokens too; gradients flow through the cached keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from metake.models.editable import EditableModel
from metake.models.kv_cache import KeyValues, KVCache, select_rows
from metake.models.trace import Trace, run


@dataclass(frozen=True)
class PrefixSuffix:
    """Values per token of a `PrefixBatch`.

    Attributes:
        suffix: `rows x width x ...`.
        prefix: `prefixes x longest prefix x ...`; None if no rows share a prefix.
    """

    suffix: Tensor
    prefix: Tensor | None = None

    def rows(self, keep: Tensor) -> PrefixSuffix:
        """Values of some rows, with all prefixes.

        Args:
            keep: indices of the rows.

        Returns:
            The suffixes of these rows.
        """
        return replace(self, suffix=self.suffix[keep.to(self.suffix.device)])

    def map(self, function: Callable[[Tensor], Tensor]) -> PrefixSuffix:
        """Values of a function, applied to suffixes and to prefixes.

        Args:
            function: takes and returns `... x length x ...`.

        Returns:
            Its results.
        """
        return PrefixSuffix(function(self.suffix), None if self.prefix is None else function(self.prefix))


def _paired(suffix: Mapping[int, Tensor], prefix: Mapping[int, Tensor]) -> dict[int, PrefixSuffix]:
    return {layer: PrefixSuffix(values, prefix.get(layer)) for layer, values in suffix.items()}


@dataclass(frozen=True)
class PrefixBatch:
    """Token rows, each divided into a shared prefix and a suffix of its own.

    Attributes:
        ids: token ids.
        prefix_lengths: `rows`, length of each row's prefix; 0 for a row without one.
        prefix_index: `rows`, index of each row's prefix; without meaning where the length is 0.
        prefix_rows: `prefixes`, a whole row that begins with the prefix.
        width: length of the longest suffix.
        masks: see `KVCache`.
    """

    ids: PrefixSuffix
    prefix_lengths: Tensor
    prefix_index: Tensor
    prefix_rows: Tensor
    width: int
    masks: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, ids: Tensor, needed: Sequence[int], prefix_lengths: Sequence[int], groups: Sequence[int]
    ) -> PrefixBatch:
        """Batch of padded rows.

        Args:
            ids: `rows x length`, padded on the right.
            needed: number of tokens of each row that a pass has to read.
            prefix_lengths: number of tokens that each row shares with all other rows of its group.
            groups: group of each row; rows with the same number share their prefix.

        Returns:
            The batch, on the device of `ids`.
        """
        sources: dict[int, int] = {}
        for row, (length, group) in enumerate(zip(prefix_lengths, groups, strict=True)):
            if length:
                sources.setdefault(group, row)
        order = {group: i for i, group in enumerate(sources)}
        index = torch.tensor([order.get(group, 0) for group in groups])
        width = max(n - length for n, length in zip(needed, prefix_lengths, strict=True))
        rows = torch.tensor(list(sources.values()), dtype=torch.long)
        empty = cls(PrefixSuffix(ids), torch.tensor(prefix_lengths), index, rows, width)
        return replace(empty, ids=empty.cut(ids))

    def cut(self, whole: Tensor) -> PrefixSuffix:
        """Prefixes and suffixes of values at every token.

        Args:
            whole: `rows x length x ...`.

        Returns:
            The same values, divided.
        """
        device = whole.device
        rows = torch.arange(len(self.prefix_lengths))[:, None]
        columns = (self.prefix_lengths[:, None] + torch.arange(self.width)).clamp(max=whole.shape[1] - 1)
        suffix = whole[rows.to(device), columns.to(device)]
        if not len(self.prefix_rows):
            return PrefixSuffix(suffix)
        return PrefixSuffix(suffix, whole[self.prefix_rows.to(device), : int(self.prefix_lengths.max())])

    def rows(self, keep: Tensor) -> PrefixBatch:
        """Batch of some rows, with all prefixes.

        Args:
            keep: indices of the rows.

        Returns:
            A batch with `len(keep)` rows.
        """
        return replace(
            self,
            ids=self.ids.rows(keep),
            prefix_lengths=self.prefix_lengths[keep],
            prefix_index=self.prefix_index[keep],
            masks={},
        )

    def prefix_key_values(self, model: EditableModel) -> dict[int, KeyValues]:
        """Attention's keys and values of the prefixes in every layer of the unedited model.

        Args:
            model: the model.

        Returns:
            Layer -> keys and values; empty without prefixes.
        """
        if self.ids.prefix is None:
            return {}
        return run(model, self.ids.prefix, stop=len(model) - 1, record_from=0).key_values

    def prefix_cache(
        self, key_values: Mapping[int, KeyValues], rows: Sequence[int], layers: Iterable[int]
    ) -> KVCache | None:
        """KV cache of some rows' prefixes.

        Args:
            key_values: result of `prefix_key_values`.
            rows: indices of the rows.
            layers: layers that the pass runs through.

        Returns:
            A cache with one row per row; None without prefixes.
        """
        if not key_values:
            return None
        selected = select_rows({layer: key_values[layer] for layer in layers}, self.prefix_index[rows])
        return KVCache(selected, self.prefix_lengths[rows])

    def run(
        self,
        model: EditableModel,
        *,
        start: int = 0,
        hidden: PrefixSuffix | None = None,
        stop: int | None = None,
        keys: Sequence[int] = (),
        values: Sequence[int] = (),
        outputs: Sequence[int] = (),
        inputs: Sequence[int] = (),
        edits: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        positions: tuple[Tensor, Tensor] | None = None,
        cache: KVCache | None = None,
    ) -> Trace[PrefixSuffix]:
        """Trace of one pass over the prefixes and one over the suffixes.

        Args:
            model: the model.
            start: first block to run.
            hidden: residual stream before block `start`; needed unless `start` is 0.
            stop: last block to run; the head is then not reached.
            keys: layers whose down-projection inputs are observed.
            values: layers whose down-projection outputs are observed.
            outputs: layers whose residual stream is observed after the block.
            inputs: layers whose residual stream is observed before the block.
            edits: layer -> `(left, right)`, virtual weights as in `trace.run`.
            positions: `(rows, columns)` of the suffixes at which logits are computed.
            cache: KV cache of constant tokens before the rows, for a batch without prefixes.

        Returns:
            What both passes observed; logits are those of the suffixes.
        """
        both: dict[str, Any] = {
            "keys": keys,
            "values": values,
            "outputs": outputs,
            "inputs": inputs,
            "edits": edits,
        }
        prefix = Trace[Tensor]()
        if self.ids.prefix is not None and start < len(model):
            prefix = run(
                model,
                self.ids.prefix,
                start=start,
                hidden=None if hidden is None else hidden.prefix,
                stop=len(model) - 1 if stop is None else stop,
                record_from=start,
                **both,
            )
            selected = select_rows(prefix.key_values, self.prefix_index)
            cache = KVCache(selected, self.prefix_lengths, masks=self.masks)
        suffix = run(
            model,
            self.ids.suffix,
            start=start,
            hidden=None if hidden is None else hidden.suffix,
            stop=stop,
            positions=positions,
            cache=cache,
            **both,
        )
        return Trace(
            keys=_paired(suffix.keys, prefix.keys),
            values=_paired(suffix.values, prefix.values),
            outputs=_paired(suffix.outputs, prefix.outputs),
            inputs=_paired(suffix.inputs, prefix.inputs),
            logits=suffix.logits,
        )
