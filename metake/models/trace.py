"""One forward pass, of which any part can be skipped, observed or modified.

All uses of a model by an edit go through `run`: keys at the down-projections, hidden states after a block, logits at
chosen positions; from tokens or from a cached hidden state; to the head or to a block below it; with or without virtual
edits. Rows are padded on the right and no mask is passed: under causal attention no token attends to padding after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from metake.models.ambient import neutral
from metake.models.editable import EditableModel
from metake.models.kv_cache import KeyValues, KVCache
from metake.models.probe import logits_of, stream_of
from metake.models.wrappers import runs_compiled

Values = TypeVar("Values")


@dataclass
class Trace(Generic[Values]):
    """Activations that a pass observed: tensors, or for a `PrefixBatch` pairs of suffix and prefix.

    Attributes:
        keys: layer -> inputs of its down-projection, `rows x length x d_k`.
        values: layer -> outputs of its down-projection with virtual edits, `rows x length x d_v`.
        outputs: layer -> residual stream after the block, `rows x length x d_v`.
        inputs: layer -> residual stream before the block, same shape.
        logits: `positions x vocabulary`, empty if the pass stopped before the head.
        key_values: layer -> attention's keys and values of the cached and the new tokens, from layer `record_from` on.
    """

    keys: dict[int, Values] = field(default_factory=dict)
    values: dict[int, Values] = field(default_factory=dict)
    outputs: dict[int, Values] = field(default_factory=dict)
    inputs: dict[int, Values] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    key_values: dict[int, KeyValues] = field(default_factory=dict)


class _Stop(Exception):
    """Leaves the forward pass after the last block that is needed."""


def upcast(values: Tensor) -> Tensor:
    """Values in fp32, or in their own dtype if it is wider; sums and solves run in this precision.

    Args:
        values: tensor of a floating dtype.

    Returns:
        The same values.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Context in which every hook of a model is called and its passes return objects, not tuples.

    Compiled models skip hooks, and with `return_dict=False` some families of `transformers` do not run at all.

    Args:
        model: the model; its configuration is restored afterwards.
    """
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
    """Context in which modules run `forward` instead of their own."""
    had = [(module, module.__dict__.get("forward")) for module in modules]
    for module, _ in had:
        module.forward = forward
    try:
        yield
    finally:
        for module, own in had:
            if own is None:
                del module.__dict__["forward"]
            else:  # set by another library (sharding)
                module.forward = own


def _only_at(
    forward: Callable[[Tensor], Tensor], positions: tuple[Tensor, Tensor]
) -> Callable[[Tensor], Tensor]:
    """A function of single tokens, evaluated at distinct `positions` only; 0 elsewhere."""

    def sparse(stream: Tensor) -> Tensor:
        at = (positions[0].to(stream.device), positions[1].to(stream.device))
        found = forward(stream[at])
        return found.new_zeros(*stream.shape[:-1], found.shape[-1]).index_put(at, found)

    return sparse


# `transformers` writes GELU's tanh form in eight operations, each of which reads and keeps the widest activation of a
# block; one fused operation gives the same values up to rounding (in half precision, rounded once)
_gelu = partial(nn.functional.gelu, approximate="tanh")


def run(
    model: EditableModel,
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
    weights: Mapping[int, Tensor] | None = None,
    positions: tuple[Tensor, Tensor] | None = None,
    cache: KVCache | None = None,
    record_from: int | None = None,
) -> Trace[Tensor]:
    """Trace of a pass over right-padded rows.

    Args:
        model: the model.
        ids: token ids, `rows x length`.
        start: first block to run; `len(model)` runs norm and head only.
        hidden: residual stream before block `start`, `rows x length x d_v`; needed unless `start` is 0.
        stop: last block to run; the head is then not reached.
        keys: layers whose down-projection inputs are observed.
        values: layers whose down-projection outputs are observed.
        outputs: layers whose residual stream is observed after the block.
        inputs: layers whose residual stream is observed before the block.
        edits: layer -> `(left, right)`, `d_v x n` and `d_k x n`: virtual weights `W + left right^T`, computed as
            `y + left (right^T k)` at every position.
        weights: layer -> `d_v x d_k`, a weight that its down-projection uses in place of its own.
        positions: distinct `(rows, columns)` at which logits are computed; by default all, if the head is reached.
        cache: keys and values of the tokens before `ids`.
        record_from: first layer whose attention keys and values are recorded, for the `cache` of a later pass.

    Returns:
        What the pass observed.

    Raises:
        ValueError: `start` is not 0 and there is no `hidden`.
    """
    if ids.device.type == "cpu" and ids.numel():
        model.check_tokens(int(ids.max()))
    trace = Trace[Tensor]()
    held, options = _cache_options(model, ids, cache, record_from)
    with eager(model.model), _replaced(model.unfused_gelus, _gelu), ExitStack() as stack:
        route_through_down(stack, model)
        _skip_blocks(stack, model, start, hidden)
        _replace_weights(stack, model, weights or {})
        _observe_keys(stack, model, trace, keys, ids.shape)
        _apply_edits(stack, model, edits or {}, start)
        _observe_values(stack, model, trace, values, ids.shape)
        _observe_inputs(stack, model, trace, inputs)
        _observe_outputs(stack, model, trace, outputs, stop)
        if positions is not None:
            if stop is None and len(model) - 1 not in (*keys, *values, *outputs):
                _skip_last_ffn(stack, model, positions, ids.numel())
            _select_positions(stack, model, positions)
        with suppress(_Stop):
            trace.logits = logits_of(model.model(input_ids=ids.to(model.device), use_cache=False, **options))
    if held is not None:
        trace.key_values = held.recorded
    if model.is_sharded:
        _gather_before_backward(model, trace)
    return trace


def _gather_before_backward(model: EditableModel, trace: Trace[Tensor]) -> None:
    """Gather a divided block also for the gradients of what was observed within it; FSDP does for those of its output."""
    within = [(layer, tensor) for part in (trace.keys, trace.values) for layer, tensor in part.items()]
    within += [(layer, tensor) for layer, pair in trace.key_values.items() for tensor in pair]
    for layer, tensor in within:
        if tensor.requires_grad:
            block: Any = model.blocks[layer]
            hooked: Any = tensor  # `register_hook` has no annotations
            hooked.register_hook(lambda _, block=block: block.unshard())


def _cache_options(
    model: EditableModel, ids: Tensor, cache: KVCache | None, record_from: int | None
) -> tuple[KVCache | None, dict[str, Any]]:
    """Cache that records the pass, None if there is none, and the arguments of the model for it."""
    held: KVCache | None = None
    options: dict[str, Any] = {}
    if cache is not None or record_from is not None:
        held = (KVCache({}, ids.new_zeros(len(ids))) if cache is None else cache).recording(record_from)
        options[model.cache_argument] = held
    if cache is not None:
        mask, at = cache.mask_and_positions(ids.shape[1], model.max_positions, model.device)
        options |= {"attention_mask": mask, "position_ids": at}
    return held, options


def route_through_down(stack: ExitStack, model: EditableModel) -> None:
    """Run the experts of a mixture through one down-projection, which can be observed and edited.

    Args:
        stack: restores the experts' own forward when it is closed.
        model: the model.
    """
    for experts in model.experts.values():
        stack.enter_context(_replaced([experts.module], experts.forward))


def _skip_blocks(stack: ExitStack, model: EditableModel, start: int, hidden: Tensor | None) -> None:
    """Return `hidden` from the blocks before `start` without running them."""
    if start > 0:
        if hidden is None:
            raise ValueError("a pass that starts at a block needs the hidden state before it")
        skipped = (hidden, None) if model.returns_tuples else hidden
        stack.enter_context(_replaced(model.blocks[:start], lambda *_, **__: skipped))


def _replace_weights(stack: ExitStack, model: EditableModel, weights: Mapping[int, Tensor]) -> None:
    for layer, weight in weights.items():
        down = model.down(layer)

        def forward(key: Tensor, down: nn.Module = down, weight: Tensor = weight) -> Tensor:
            # the bias of a divided model is whole only while its block runs
            return nn.functional.linear(key, weight, getattr(down, "bias", None))

        stack.enter_context(_replaced([down], forward))


def _by_row(tokens: Tensor, shape: torch.Size) -> Tensor:
    """Values as `rows x length x d`; some families (OPT) concatenate the rows of an FFN."""
    return tokens.reshape(*shape, -1)


def _observe_keys(
    stack: ExitStack, model: EditableModel, trace: Trace[Tensor], layers: Sequence[int], shape: torch.Size
) -> None:
    for layer in layers:

        def keep(_: object, args: tuple[Tensor, ...], layer: int = layer) -> None:
            trace.keys[layer] = _by_row(args[0], shape)

        stack.callback(model.down(layer).register_forward_pre_hook(keep).remove)


def _apply_edits(
    stack: ExitStack, model: EditableModel, edits: Mapping[int, tuple[Tensor, Tensor]], start: int
) -> None:
    for layer, (left, right) in edits.items():
        if layer < start:
            continue

        def add(
            _: object, args: tuple[Tensor, ...], output: Tensor, left: Tensor = left, right: Tensor = right
        ) -> Tensor:
            key = args[0]
            gate = key.to(right.dtype) @ right.to(key.device)
            return output + (gate @ left.to(key.device).T).to(output.dtype)

        stack.callback(model.down(layer).register_forward_hook(add).remove)


def _observe_values(
    stack: ExitStack, model: EditableModel, trace: Trace[Tensor], layers: Sequence[int], shape: torch.Size
) -> None:
    for layer in layers:

        def keep(_: object, __: object, output: Tensor, layer: int = layer) -> Tensor:
            observed = trace.values[layer] = _by_row(output, shape)
            # the model continues from a copy: some families (Falcon) add to it in place
            return observed.reshape(output.shape).clone()

        stack.callback(model.down(layer).register_forward_hook(keep).remove)


def _observe_inputs(
    stack: ExitStack, model: EditableModel, trace: Trace[Tensor], layers: Sequence[int]
) -> None:
    for layer in layers:

        def keep(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int = layer) -> None:
            trace.inputs[layer] = args[0] if args else kwargs["hidden_states"]

        stack.callback(model.blocks[layer].register_forward_pre_hook(keep, with_kwargs=True).remove)


def _observe_outputs(
    stack: ExitStack, model: EditableModel, trace: Trace[Tensor], layers: Sequence[int], stop: int | None
) -> None:
    """Observe blocks, and leave the pass after block `stop`."""
    for layer in {*layers, *(() if stop is None else (stop,))}:

        def keep(_: object, __: object, output: Any, layer: int = layer) -> None:
            if layer in layers:
                trace.outputs[layer] = stream_of(output)
            if layer == stop:
                raise _Stop

        stack.callback(model.blocks[layer].register_forward_hook(keep).remove)


def _skip_last_ffn(
    stack: ExitStack, model: EditableModel, positions: tuple[Tensor, Tensor], tokens: int
) -> None:
    """Run the last FFN at the positions of logits only, if they are fewer than half of all tokens."""
    ffn = model.ffn(len(model) - 1)
    if ffn is not None and 2 * len(positions[0]) < tokens:
        stack.enter_context(_replaced([ffn], _only_at(ffn.forward, positions)))


def _select_positions(stack: ExitStack, model: EditableModel, positions: tuple[Tensor, Tensor]) -> None:
    """Run the head at some positions only."""
    rows, columns = positions

    def gather(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        stream = args[0]
        return (stream[rows.to(stream.device), columns.to(stream.device)],)

    stack.callback(model.head.register_forward_pre_hook(gather).remove)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context with a model in evaluation mode, its parameters without gradients, and PyTorch's default modes.

    Args:
        model: the model; its modes are restored afterwards.
    """
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
