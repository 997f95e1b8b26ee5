"""Tiny random language models, and batches and geometries for them."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from metake.figures.numbers import basis
from metake.geometry.operator import Fit, Geometry
from metake.models.editable import EditableModel
from metake.models.tokens import Row
from metake.prompts import Batch, RowSpec
from metake.requests import EditRequest

WORDS, WIDTH, INNER, BLOCKS = 32, 8, 12, 4
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "gpt2": GPT2Config(
        **SIZES,
        n_embd=WIDTH,
        n_inner=INNER,
        n_layer=BLOCKS,
        n_head=2,
        n_positions=16,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
    ),
    "llama": LlamaConfig(
        **SIZES,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
    ),
}


def model(family: str, seed: int = 0, blocks: int = BLOCKS) -> nn.Module:
    """Random language model in fp64, with weights large enough for edits to have an effect.

    Args:
        family: `gpt2` or `llama`.
        seed: seed of the weights.
        blocks: number of blocks.

    Returns:
        The model.
    """
    torch.manual_seed(seed)
    config = deepcopy(CONFIGS[family])
    config.num_hidden_layers = blocks
    auto: Any = AutoModelForCausalLM  # `from_config` has no annotations
    built: nn.Module = auto.from_config(config).eval().double().requires_grad_(False)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.5)
    return built


@cache
def tiny(family: str, seed: int = 0) -> EditableModel:
    """Random language model, cached.

    Args:
        family: `gpt2` or `llama`.
        seed: seed of the weights.

    Returns:
        The model.
    """
    return EditableModel(model(family, seed))


@cache
def still(
    seed: int = 0, layers: tuple[int, ...] = (1, 2, 3), alike: bool = False, blocks: int = BLOCKS
) -> EditableModel:
    """GPT-2 with layers whose keys and attention do not depend on the stream: identity transport (A2).

    Args:
        seed: seed of the weights.
        layers: these layers.
        alike: give all of them the same key.
        blocks: number of blocks.

    Returns:
        The model.
    """
    built: Any = model("gpt2", seed, blocks)
    for layer in layers:
        block = built.transformer.h[layer]
        block.mlp.c_fc.weight.zero_()
        block.mlp.c_fc.bias.normal_()
        block.attn.c_proj.weight.zero_()
        if alike:
            block.mlp.c_fc.bias.copy_(built.transformer.h[layers[0]].mlp.c_fc.bias)
    return EditableModel(built)


def batch(size: int = 1, seed: int = 0, length: int = 6, lookup: int = 2, answer: int = 2) -> Batch:
    """Requests as rows of random tokens, without a tokenizer; the KL prompt is the row up to its lookup token.

    Args:
        size: number of requests, a row each.
        seed: seed of the tokens.
        length: tokens per row.
        lookup: position of the lookup token.
        answer: number of answer tokens.

    Returns:
        The batch.
    """
    rng = np.random.default_rng(seed)
    rows = [Row(tuple(rng.integers(1, WORDS, length).tolist()), lookup, answer) for _ in range(size)]
    kl_prompts = [RowSpec(owner, row.up_to_lookup, has_residual=True) for owner, row in enumerate(rows)]
    return Batch((EditRequest("{} is", "subject", "answer"),) * size, tuple(rows), tuple(kl_prompts), 1)


def moment(seed: int, condition: float = 10.0) -> Tensor:
    """Random second moment of keys.

    Args:
        seed: seed of its eigenvectors.
        condition: condition number.

    Returns:
        `d_k x d_k`, fp64.
    """
    U = basis(INNER, 2000 + seed)
    return torch.tensor((U * np.geomspace(1, condition, INNER)) @ U.T)


class Held(Geometry):
    """Geometry with a fixed channel; residuals alone depend on the target.

    Args:
        inner: geometry of the other quantities.
        channel: the channel, `d_k x n`.
    """

    def __init__(self, inner: Geometry, channel: Tensor) -> None:
        self.inner, self.held = inner, channel
        self.dtype, self.device = inner.dtype, inner.device

    def channel_and_attenuation(self, keys: Tensor, fit: Fit = "least_squares") -> tuple[Tensor, Tensor]:
        """The fixed channel, and attenuations of keys.

        Args:
            keys: `d_k x n`.
            fit: not used.

        Returns:
            Channel, `d_k x n`, and attenuations, `n`.
        """
        return self.held, self.inner.attenuation(keys)

    def coordinates(self, keys: Tensor) -> Tensor:
        """Coordinates of keys in the inner geometry.

        Args:
            keys: `d_k x n`.

        Returns:
            `m x n`.
        """
        return self.inner.coordinates(keys)

    def lift(self, channel: Tensor) -> Tensor:
        """Channel in the coordinates of keys.

        Args:
            channel: `m x n`.

        Returns:
            `d_k x n`.
        """
        return self.inner.lift(channel)

    def solve_base(self, x: Tensor) -> Tensor:
        """Solve of the inner geometry without remembered keys.

        Args:
            x: `m x n`.

        Returns:
            `m x n`.
        """
        return self.inner.solve_base(x)

    @property
    def condition(self) -> float:
        """Condition number of the inner geometry."""
        return self.inner.condition

    def with_past(self, keys: Tensor | None) -> Held:
        """The geometry with remembered keys; the channel stays.

        Args:
            keys: `d_k x p`.

        Returns:
            The geometry.
        """
        return Held(self.inner.with_past(keys), self.held)
