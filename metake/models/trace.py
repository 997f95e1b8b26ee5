"""One forward pass, of which any part may be skipped, observed, or altered on the way.

Everything that an edit asks of a model is this one function: keys at the down-projections, hidden
states after a block, logits at chosen positions; from the tokens or from a cached hidden state;
to the head or only as far as needed; with or without virtual edits. Padding is on the right and no
mask is passed: under causal attention no real token sees what comes after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from metake.models.ambient import neutral
from metake.models.architecture import Architecture
from metake.models.past import Memory, Past, States
from metake.models.probe import logits_of, stream_of
from metake.models.wrappers import runs_compiled


@dataclass
class Trace:
    """What a pass observed.

    Attributes:
        keys: layer -> inputs of its down-projection, `rows x length x d_k`.
        values: layer -> outputs of its down-projection with virtual edits, `rows x length x d_v`.
        outputs: layer -> residual stream after the block, `rows x length x d_v`.
        inputs: layer -> residual stream before the block, same shape.
        logits: `positions x vocabulary`, empty if the pass stopped before the head.
        states: layer -> attention's keys and values, those of `past` first, from layer `record` on.
    """

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    states: dict[int, States] = field(default_factory=dict)


class _Stop(Exception):
    """Leaves the forward pass after the last block that is needed."""


def upcast(values: Tensor) -> Tensor:
    """Values in fp32, or in their own dtype if it is wider; sums and solves run in this precision.

    Args:
        values: tensor of a floating dtype.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Passes that call every hook and return what they are read for, of a compiled model too, and of one that is
    configured to return tuples (with which some families of `transformers` do not run at all)."""
    config = getattr(model, "config", None)
    tuples = getattr(config, "return_dict", True) is False
    with ExitStack() as stack:
        if runs_compiled(model):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if tuples:
            stack.callback(setattr, config, "return_dict", False)
            setattr(config, "return_dict", True)  # noqa: B010  (a config of any class)
        yield


@contextmanager
def _replaced(modules: Iterable[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Modules that run `forward` instead of their own."""
    had = [(module, module.__dict__.get("forward")) for module in modules]
    for module, _ in had:
        module.forward = forward
    try:
        yield
    finally:
        for module, own in had:
            if own is None:
                del module.__dict__["forward"]
            else:  # another library (sharding) had put its own there
                module.forward = own


def _only_at(
    forward: Callable[[Tensor], Tensor], places: tuple[Tensor, Tensor]
) -> Callable[[Tensor], Tensor]:
    """What maps every token for itself, at `places` alone, which differ; 0 elsewhere."""

    def sparse(stream: Tensor) -> Tensor:
        at = (places[0].to(stream.device), places[1].to(stream.device))
        seen = forward(stream[at])
        return seen.new_zeros(*stream.shape[:-1], seen.shape[-1]).index_put(at, seen)

    return sparse


# `transformers` writes GELU's tanh form out in eight operations, each of which reads and keeps the widest
# activation of a block; in one, the values are the same to rounding (in half precision, rounded once)
_gelu = partial(nn.functional.gelu, approximate="tanh")


def run(
    arch: Architecture,
    ids: Tensor,
    *,
    start: int = 0,
    hidden: Tensor | None = None,
    stop: int | None = None,
    keys: Sequence[int] = (),
    values: Sequence[int] = (),
    outputs: Sequence[int] = (),
    inputs: Sequence[int] = (),
    edits: Mapping[int, tuple[Tensor, Tensor]] | None = None,
    positions: tuple[Tensor, Tensor] | None = None,
    past: Past | None = None,
    record: int | None = None,
) -> Trace:
    """Run `arch` on right-padded `ids` (`rows x length`) and observe.

    Args:
        start: first block to run; needs `hidden`, the stream before that block
            (`rows x length x d_v`). `start = len(arch)` runs norm and head alone.
        stop: last block to run; the head is then not reached.
        keys, values, outputs, inputs: layers to observe.
        edits: layer -> `(left, right)`, `d_v x n` and `d_k x n`: virtual weights
            `W + left right^T`, as `y + left (right^T k)` at every position.
        positions: `(rows, columns)` at which logits are wanted, each once; nothing that only others need
            is computed. Without it there are logits at every position, if the pass reaches the head.
        past: what stands before `ids`, which are then the last tokens of their rows.
        record: keep attention's keys and values from this layer on, for a later pass's `past`.
    """
    if ids.device.type == "cpu" and ids.numel():
        arch.check_tokens(int(ids.max()))
    trace = Trace()
    blocks = arch.blocks
    more: dict[str, Any] = {}
    memory = None
    if past is not None or record is not None:
        memory = more[arch.memory_name] = Memory(past, record)
    if past is not None:
        mask, at = past.layout(ids.shape[1], arch.max_positions, arch.device)
        more |= {"attention_mask": mask, "position_ids": at}
    with ExitStack() as stack:
        stack.enter_context(eager(arch.model))
        stack.enter_context(_replaced(arch.written_out_gelus, _gelu))

        def hook(handle: torch.utils.hooks.RemovableHandle) -> None:
            stack.callback(handle.remove)

        if start > 0:
            if hidden is None:
                raise ValueError("a pass that starts at a block needs the hidden state before it")
            skipped = (hidden, None) if arch.returns_tuples else hidden
            stack.enter_context(_replaced(blocks[:start], lambda *_, **__: skipped))

        def by_row(tokens: Tensor) -> Tensor:
            """Some families (OPT) lay the rows of an FFN end to end."""
            return tokens.reshape(*ids.shape, -1)

        for layer in keys:

            def keep_key(_, args, layer=layer):
                trace.keys[layer] = by_row(args[0])

            hook(arch.down(layer).register_forward_pre_hook(keep_key))
        for layer, (left, right) in (edits or {}).items():
            if layer < start:
                continue

            def alter(_, args, output, left=left, right=right):
                key = args[0]
                gate = key.to(right.dtype) @ right.to(key.device)
                return output + (gate @ left.to(key.device).T).to(output.dtype)

            hook(arch.down(layer).register_forward_hook(alter))
        for layer in values:

            def keep_value(_, __, output, layer=layer):
                seen = trace.values[layer] = by_row(output)
                # the model goes on from what was seen, in a copy: some (Falcon) add to it in place
                return seen.reshape(output.shape).clone()

            hook(arch.down(layer).register_forward_hook(keep_value))
        for layer in inputs:

            def keep_input(_, args, kwargs, layer=layer):
                trace.inputs[layer] = args[0] if args else kwargs["hidden_states"]

            hook(blocks[layer].register_forward_pre_hook(keep_input, with_kwargs=True))
        for layer in {*outputs, *(() if stop is None else (stop,))}:

            def keep_output(_, __, output, layer=layer):
                if layer in outputs:
                    trace.outputs[layer] = stream_of(output)
                if layer == stop:
                    raise _Stop

            hook(blocks[layer].register_forward_hook(keep_output))
        if positions is not None:
            rows, columns = positions
            ffn, last = arch.ffn(len(arch) - 1), len(arch) - 1
            watched = last in (*keys, *values, *outputs)
            if ffn is not None and stop is None and not watched and 2 * len(rows) < ids.numel():
                stack.enter_context(_replaced([ffn], _only_at(ffn.forward, positions)))

            def gather(_, args):
                stream = args[0]
                return (stream[rows.to(stream.device), columns.to(stream.device)],)

            hook(arch.head.register_forward_pre_hook(gather))
        with suppress(_Stop):
            trace.logits = logits_of(arch.model(input_ids=ids.to(arch.device), use_cache=False, **more))
    if memory is not None:
        trace.states = memory.seen
    return trace


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients for parameters, PyTorch's own defaults; all as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        with neutral():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in wanted:
            parameter.requires_grad_(True)
