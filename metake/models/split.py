"""Rows whose beginnings are common: each beginning runs once, and every row goes on from it.

The requests of a batch are planned after the same few contexts, which are then most of what a pass
reads. A beginning answers to virtual edits as any other token does, and gradients by them flow back
through attention's keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metake.models.architecture import Architecture
from metake.models.past import Past, States, take
from metake.models.trace import Trace, run


@dataclass(frozen=True)
class Parts:
    """Something known at every token: of the rows' own tokens, and of the beginnings, if there are any."""

    own: Tensor
    common: Tensor | None = None

    def rows(self, keep: Tensor) -> Parts:
        """Some rows, with all beginnings."""
        return replace(self, own=self.own[keep.to(self.own.device)])

    def each(self, change: Callable[[Tensor], Tensor]) -> Parts:
        return Parts(change(self.own), None if self.common is None else change(self.common))


@dataclass(frozen=True)
class Seen:
    """What a pass saw at every token: layer -> stream before it, after it, and keys."""

    inputs: dict[int, Parts]
    outputs: dict[int, Parts]
    keys: dict[int, Parts]


@dataclass(frozen=True)
class Split:
    """How padded rows fall into parts.

    Attributes:
        ids: token ids of both parts.
        begins: `rows`, where in its row each own part begins.
        which: `rows`, the beginning each follows; of no meaning where `begins` is 0.
        sources: per beginning, a whole row that begins with it.
        width: longest of the own parts.
        ready: of `Past`.
    """

    ids: Parts
    begins: Tensor
    which: Tensor
    sources: Tensor
    width: int
    ready: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, ids: Tensor, needed: Sequence[int], begins: Sequence[int], groups: Sequence[int]) -> Split:
        """Rows of padded `ids`, each needed up to some length.

        Args:
            begins: how many tokens each row shares with all others of its group.
        """
        sources: dict[int, int] = {}
        for row, (begin, group) in enumerate(zip(begins, groups, strict=True)):
            if begin:
                sources.setdefault(group, row)
        order = {group: i for i, group in enumerate(sources)}
        which = torch.tensor([order.get(group, 0) for group in groups])
        width = max(length - begin for length, begin in zip(needed, begins, strict=True))
        at = torch.tensor(list(sources.values()), dtype=torch.long)
        empty = cls(Parts(ids), torch.tensor(begins), which, at, width)
        return replace(empty, ids=empty.cut(ids))

    def cut(self, whole: Tensor) -> Parts:
        """The parts of something `rows x length x ...`."""
        device = whole.device
        rows = torch.arange(len(self.begins))[:, None]
        columns = (self.begins[:, None] + torch.arange(self.width)).clamp(max=whole.shape[1] - 1)
        own = whole[rows.to(device), columns.to(device)]
        if not len(self.sources):
            return Parts(own)
        return Parts(own, whole[self.sources.to(device), : int(self.begins.max())])

    def rows(self, keep: Tensor) -> Split:
        return replace(
            self, ids=self.ids.rows(keep), begins=self.begins[keep], which=self.which[keep], ready={}
        )

    def states(self, arch: Architecture) -> dict[int, States]:
        """What attention keeps of the beginnings, in every layer."""
        if self.ids.common is None:
            return {}
        return run(arch, self.ids.common, stop=len(arch) - 1, record=0).states

    def past(self, states: Mapping[int, States], rows: Sequence[int], layers: Iterable[int]) -> Past | None:
        """The beginnings of some rows, for a pass through some layers; None without any."""
        if not states:
            return None
        return Past(take({layer: states[layer] for layer in layers}, self.which[rows]), self.begins[rows])

    def run(
        self,
        arch: Architecture,
        *,
        start: int = 0,
        hidden: Parts | None = None,
        stop: int | None = None,
        keys: Sequence[int] = (),
        outputs: Sequence[int] = (),
        inputs: Sequence[int] = (),
        edits: Mapping[int, tuple[Tensor, Tensor]] | None = None,
        positions: tuple[Tensor, Tensor] | None = None,
        record: int | None = None,
    ) -> tuple[Trace, Seen]:
        """As `trace.run`, over both parts.

        Args:
            hidden: the stream before `start`, needed if that is not 0.
            positions: of the rows' own tokens.
            record: keeps attention's states of both parts, the beginnings' first.

        Returns:
            What was seen of the rows' own tokens, and of both parts.
        """
        past, common = None, Trace()
        own = None if hidden is None else hidden.own
        if self.ids.common is not None and start < len(arch):
            above = None if hidden is None else hidden.common
            last = len(arch) - 1 if stop is None else stop
            common = run(
                arch,
                self.ids.common,
                start=start,
                hidden=above,
                stop=last,
                inputs=inputs,
                keys=keys,
                outputs=outputs,
                edits=edits,
                record=start,
            )
            past = Past(take(common.states, self.which), self.begins, ready=self.ready)
        trace = run(
            arch,
            self.ids.own,
            start=start,
            hidden=own,
            stop=stop,
            keys=keys,
            outputs=outputs,
            inputs=inputs,
            edits=edits,
            positions=positions,
            past=past,
            record=record,
        )

        def both(of: dict[int, Tensor], more: dict[int, Tensor]) -> dict[int, Parts]:
            return {layer: Parts(found, more.get(layer)) for layer, found in of.items()}

        return trace, Seen(
            both(trace.inputs, common.inputs),
            both(trace.outputs, common.outputs),
            both(trace.keys, common.keys),
        )
