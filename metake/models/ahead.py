"""What a plan runs once: the stream up to a block at every token, and above it the tokens that never change.

Passes hold at most so many padded tokens: rows that run together later need not be alike in what stands
before.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metake.models.architecture import Architecture
from metake.models.past import States, take
from metake.models.split import Split
from metake.models.tokens import chunks
from metake.models.trace import run


def stream_after(
    arch: Architecture, split: Split, states: Mapping[int, States], block: int, lengths: Tensor, budget: int
) -> Tensor:
    """The stream after a block at the rows' own tokens, `rows x width x d_v`; 0 where a row has ended.

    Args:
        states: of the beginnings, `Split.states`.
        lengths: `rows`, how many own tokens each has.
        budget: padded tokens per pass.
    """
    stream: Tensor | None = None
    for group in chunks(lengths.tolist(), budget):
        width = int(lengths[group].max())
        past = split.past(states, group, range(block + 1))
        trace = run(arch, split.ids.own[group, :width], outputs=(block,), stop=block, past=past)
        found = trace.outputs[block]
        if stream is None:
            stream = found.new_zeros(len(lengths), split.width, found.shape[2])
        stream[group, :width] = found
    assert stream is not None
    return stream


def memory_above(
    arch: Architecture,
    split: Split,
    states: Mapping[int, States],
    block: int,
    stream: Tensor,
    ahead: Tensor,
    budget: int,
) -> dict[int, States]:
    """What attention keeps above a block: of the beginnings, then of so many own tokens of each row.

    Args:
        stream: after the block, of `stream_after`.
        ahead: `rows`, how many own tokens to keep.

    Returns:
        Layer -> keys and values, `rows x heads x (longest beginning + most ahead) x d`.
    """
    upper = range(block + 1, len(arch))
    memory = take({layer: states[layer] for layer in upper}, split.which) if states else {}
    common, most = int(split.begins.max()), int(ahead.max())
    rows = ahead.nonzero()[:, 0]
    for i, chunk in enumerate(chunks(ahead[rows].tolist(), budget)):
        group = rows[chunk].tolist()
        width = int(ahead[group].max())
        trace = run(
            arch,
            split.ids.own[group, :width],
            start=block + 1,
            hidden=stream[group, :width],
            stop=len(arch) - 1,
            past=split.past(states, group, upper),
            record=block + 1,
        )
        for layer, found in trace.states.items():
            if i == 0:
                keys, values = (x.new_zeros(len(ahead), x.shape[1], common + most, x.shape[3]) for x in found)
                if layer in memory:
                    keys[:, :, :common], values[:, :, :common] = memory[layer]
                memory[layer] = keys, values
            for held, x in zip(memory[layer], found, strict=True):
                held[group, :, common : common + width] = x[:, :, common:]
    return memory
