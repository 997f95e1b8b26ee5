"""Small networks: one written out in fp64, where every derivative is to be had, and tiny random language models.

`Net` is a residual stream over several tokens whose layers are edited one after the other, as MEMIT
does: what is written below moves keys and residuals above, and is felt at other tokens too.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, jacrev
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from metake.figures.numbers import Array, basis, tolerance
from metake.geometry.operator import Fit, Geometry
from metake.models.architecture import Architecture
from metake.models.tokens import Row
from metake.prompts import Batch, RowSpec
from metake.requests import EditRequest
from theory import fidelity

# -- a network in fp64 --------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """Layer l: key `k = phi(A_l h + b_l)`, then `h <- h + W_l k + tanh(h) of earlier tokens`.

    Attributes:
        A, b, W, G: per edited layer; G is its geometry.
        mix: `tokens x tokens`, strictly lower triangular: what a token takes from earlier ones.
        head: `answers x d_v`; the loss is that of answer 0 at the last token.
        start: `tokens x d_v`, the stream below the first edited layer.
        subject: the token that is edited.
    """

    A: tuple[Tensor, ...]
    b: tuple[Tensor, ...]
    W: tuple[Tensor, ...]
    G: tuple[Tensor, ...]
    mix: Tensor
    head: Tensor
    start: Tensor
    subject: int = 1

    @property
    def layers(self) -> int:
        return len(self.W)

    @property
    def width(self) -> int:
        return self.start.shape[1]

    @property
    def spread(self) -> tuple[float, ...]:
        """MEMIT's shares."""
        return tuple(1 / (self.layers - i) for i in range(self.layers))

    def forward(self, updates: Sequence[Tensor] = ()) -> tuple[list[Tensor], Tensor]:
        """Keys of every layer (`tokens x d_k`) and the stream after the last, with `W_l + updates[l]`."""
        h, keys = self.start, []
        for i, (A, b, W) in enumerate(zip(self.A, self.b, self.W, strict=True)):
            key = torch.tanh(h @ A.T + b)
            weight = W + updates[i] if i < len(updates) else W
            h = h + key @ weight.T + self.mix @ torch.tanh(h)
            keys.append(key)
        return keys, h

    def loss(self, updates: Sequence[Tensor] = ()) -> Tensor:
        """`-log P(answer 0)` at the last token, one mixing step above the last edited layer."""
        h = self.forward(updates)[1]
        h = h + self.mix @ torch.tanh(h)
        return -torch.log_softmax(self.head @ h[-1], 0)[0]

    def origin(self) -> Tensor:
        """h: the unedited stream after the last layer, at the subject."""
        return self.forward()[1][self.subject]

    def scaled(self, factor: float) -> Net:
        """The same net under a geometry that is `factor` times as stiff."""
        return replace(self, G=tuple(factor * G for G in self.G))


def net(
    seed: int,
    layers: int = 3,
    width: int = 3,
    inner: int = 4,
    tokens: int = 3,
    *,
    stiffness: float = 1.0,
    condition: float = 10.0,
    moving: float = 1.0,
    mixing: float = 0.5,
) -> Net:
    """A seeded net.

    Args:
        stiffness, condition: size and condition of the geometries.
        moving: how much keys depend on the stream; at 0 they are constant.
        mixing: how much tokens feel each other, and blocks the stream; at 0 there is no path to
            other tokens and writes pass upwards unchanged if keys are constant.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.tensor(rng.standard_normal(shape))

    geometries = []
    for i in range(layers):
        U = basis(inner, 1000 + 10 * seed + i)
        geometries.append(torch.tensor((U * np.geomspace(1, condition, inner)) @ U.T * stiffness))
    return Net(
        tuple(moving * normal(inner, width) for _ in range(layers)),
        tuple(normal(inner) for _ in range(layers)),
        tuple(0.3 * normal(width, inner) for _ in range(layers)),
        tuple(geometries),
        mixing * torch.tril(normal(tokens, tokens), -1),
        normal(4, width),
        normal(tokens, width),
        min(1, tokens - 1),
    )


@dataclass(frozen=True)
class Execution:
    """A layered solve: per layer the key, the channel and the residual; update = r q^T."""

    k: list[Tensor]
    q: list[Tensor]
    r: list[Tensor]

    @property
    def updates(self) -> list[Tensor]:
        return [torch.outer(r, q) for r, q in zip(self.r, self.q, strict=True)]


def execute(
    net: Net, z: Tensor, shares: Sequence[float] | None = None, channels: Sequence[Tensor] | None = None
) -> Execution:
    """Layer by layer, keys and residuals computed again with the updates so far.

    Args:
        shares: of what is missing, MEMIT's by default.
        channels: held instead of computed: then only residuals depend on z.
    """
    done = Execution([], [], [])
    for i, share in enumerate(shares or net.spread):
        keys, stream = net.forward(done.updates)
        k = keys[i][net.subject]
        done.k.append(k)
        done.q.append(
            torch.linalg.solve(net.G[i] + torch.outer(k, k), k) if channels is None else channels[i]
        )
        done.r.append(share * (z - stream[net.subject]))
    return done


@dataclass(frozen=True)
class Gradients:
    """What enters Theorem 3, at one target; per layer, as fp64 arrays.

    Attributes:
        J, q, r, k, Gamma: at frozen channels, Gamma at the edited weights.
        J_total, N: total derivatives of r_l and of q_l by z.
        frozen, total: gradient of the executed loss by z, channels held or not, by automatic
            differentiation of the whole solve.
    """

    J: list[Array]
    q: list[Array]
    r: list[Array]
    k: list[Array]
    Gamma: list[Array]
    J_total: list[Array]
    N: list[Array]
    frozen: Array
    total: Array


def weight_gradients(net: Net, updates: Sequence[Tensor]) -> list[Array]:
    """`Gamma_l = dLoss/dW_l` at `W + updates`."""
    return _arrays(grad(lambda u: net.loss(u))(tuple(u.detach() for u in updates)))


def gradients(net: Net, z: Tensor, shares: Sequence[float] | None = None) -> Gradients:
    """All of it at z."""
    done = execute(net, z, shares)
    held = [q.detach() for q in done.q]

    def residuals(z: Tensor) -> Tensor:
        return torch.stack(execute(net, z, shares, held).r)

    def everything(z: Tensor) -> tuple[Tensor, Tensor]:
        e = execute(net, z, shares)
        return torch.stack(e.r), torch.stack(e.q)

    J_total, N = jacrev(everything)(z)
    return Gradients(
        _arrays(jacrev(residuals)(z)),
        _arrays(done.q),
        _arrays(done.r),
        _arrays(done.k),
        weight_gradients(net, done.updates),
        _arrays(J_total),
        _arrays(N),
        grad(lambda z: net.loss(execute(net, z, shares, held).updates))(z).numpy(),
        grad(lambda z: net.loss(execute(net, z, shares).updates))(z).numpy(),
    )


def virtual(net: Net, z: Tensor, shares: Sequence[float] | None = None) -> tuple[list[Array], list[Array]]:
    """Gamma^ and q^ of the parallel proxy: `s_l (z - h) q_l^T` at all layers at once, unedited keys."""
    keys, stream = net.forward()
    q = [
        torch.linalg.solve(G + torch.outer(k[net.subject], k[net.subject]), k[net.subject])
        for G, k in zip(net.G, keys, strict=True)
    ]
    rest = z - stream[net.subject]
    updates = [s * torch.outer(rest, x) for s, x in zip(shares or net.spread, q, strict=True)]
    return weight_gradients(net, updates), _arrays(q)


def _arrays(tensors: Any) -> list[Array]:
    return [t.detach().numpy() for t in tensors]


# -- Theorem 3 ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fidelity:
    """Both sides of Theorem 3, from J, Gamma and q of every layer, the last one last."""

    J: Sequence[Array]
    Gamma: Sequence[Array]
    q: Sequence[Array]

    @classmethod
    def of(cls, source: Gradients) -> Fidelity:
        return cls(source.J, source.Gamma, source.q)

    @property
    def each(self) -> list[Array]:
        """g_l (51)."""
        return [
            np.asarray(fidelity.layer_gradient(*x), np.float64)
            for x in zip(self.J, self.Gamma, self.q, strict=True)
        ]

    @property
    def g(self) -> Array:
        return np.sum(self.each, axis=0)

    @property
    def proxy(self) -> Array:
        """g~ (59), at the same weights."""
        return np.asarray(fidelity.proxy_gradient(self.Gamma[-1], self.q[-1]), np.float64)

    @property
    def gamma(self) -> float:
        return fidelity.tail(self.each)

    @property
    def gap(self) -> float:
        """eps_I."""
        return fidelity.spectral(self.J[-1] - np.eye(len(self.J[-1])))

    @property
    def error(self) -> float:
        return float(np.linalg.norm(self.g - self.proxy))

    @property
    def bound(self) -> float:
        last, Gamma, q = (fidelity.spectral(x) for x in (self.each[-1], self.Gamma[-1], self.q[-1]))
        return fidelity.error_bound(self.gamma, last, self.gap, Gamma, q)

    @property
    def size(self) -> float:
        """What rounding of a sum over layers is measured against."""
        norm = np.linalg.norm
        return float(
            sum(norm(J) * norm(G) * norm(q) for J, G, q in zip(self.J, self.Gamma, self.q, strict=True))
        )

    @property
    def rounding(self) -> float:
        return tolerance() * self.size


# -- tiny language models -----------------------------------------------------------------------

WORDS, WIDTH, INNER, BLOCKS = 32, 8, 12, 4
SIZES: dict[str, Any] = {
    "vocab_size": WORDS,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "gpt2": GPT2Config(**SIZES, n_embd=WIDTH, n_inner=INNER, n_layer=BLOCKS, n_head=2, n_positions=16,
                       resid_pdrop=0, embd_pdrop=0, attn_pdrop=0),
    "llama": LlamaConfig(**SIZES, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=BLOCKS,
                         num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16),
}  # fmt: skip


def model(family: str, seed: int = 0, blocks: int = BLOCKS) -> nn.Module:
    """A random model in fp64 whose weights are large enough for edits to matter."""
    torch.manual_seed(seed)
    config = deepcopy(CONFIGS[family])
    config.num_hidden_layers = blocks
    built = AutoModelForCausalLM.from_config(config).eval().double().requires_grad_(False)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.5)
    return built


@cache
def tiny(family: str, seed: int = 0) -> Architecture:
    return Architecture(model(family, seed))


@cache
def still(
    seed: int = 0, layers: tuple[int, ...] = (1, 2, 3), alike: bool = False, blocks: int = BLOCKS
) -> Architecture:
    """GPT-2 whose `layers` have constant keys and do not look at the stream: identity transport (A2).

    Args:
        alike: all of them have the same key.
    """
    built: Any = model("gpt2", seed, blocks)
    for layer in layers:
        block = built.transformer.h[layer]
        block.mlp.c_fc.weight.zero_()
        block.mlp.c_fc.bias.normal_()
        block.attn.c_proj.weight.zero_()
        if alike:
            block.mlp.c_fc.bias.copy_(built.transformer.h[layers[0]].mlp.c_fc.bias)
    return Architecture(built)


def batch(size: int = 1, seed: int = 0, length: int = 6, lookup: int = 2, answer: int = 2) -> Batch:
    """Requests as rows of random tokens, without a tokenizer: one row each, no context, up to its lookup token as KL prompt."""
    rng = np.random.default_rng(seed)
    rows = [Row(tuple(rng.integers(1, WORDS, length).tolist()), lookup, answer) for _ in range(size)]
    kl_prompts = [RowSpec(owner, row.up_to_lookup, has_residual=True) for owner, row in enumerate(rows)]
    return Batch((EditRequest("{} is", "subject", "answer"),) * size, tuple(rows), tuple(kl_prompts), 1)


def moment(seed: int, condition: float = 10.0) -> Tensor:
    """A second moment of keys with a basis of its own."""
    U = basis(INNER, 2000 + seed)
    return torch.tensor((U * np.geomspace(1, condition, INNER)) @ U.T)


class Held(Geometry):
    """A geometry whose channel is held at what it once was, so that only residuals depend on the target."""

    def __init__(self, inner: Geometry, channel: Tensor) -> None:
        self.inner, self.held = inner, channel
        self.dtype, self.device = inner.dtype, inner.device

    def channel_and_attenuation(self, keys: Tensor, fit: Fit = "soft") -> tuple[Tensor, Tensor]:
        return self.held, self.inner.attenuation(keys)

    def coordinates(self, keys: Tensor) -> Tensor:
        return self.inner.coordinates(keys)

    def lift(self, channel: Tensor) -> Tensor:
        return self.inner.lift(channel)

    def solve_base(self, x: Tensor) -> Tensor:
        return self.inner.solve_base(x)

    @property
    def condition(self) -> float:
        return self.inner.condition

    def with_past(self, keys: Tensor | None) -> Held:
        return Held(self.inner.with_past(keys), self.held)
