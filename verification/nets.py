"""The small networks of `metake.figures` as random instances: nets, targets and allocations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metake.figures.networks import (  # noqa: F401 (for the tests, beside the instances)
    Execution,
    Fidelity,
    Gradients,
    Net,
    execute,
    gradients,
    net,
    virtual,
    weight_gradients,
)
from metake.figures.tiny_models import (  # noqa: F401 (likewise)
    INNER,
    WIDTH,
    Held,
    batch,
    moment,
    still,
    tiny,
)
from verification.strategies import seeds

Array = NDArray[np.float64]

# A net's derivatives cost 20 ms: a share of the profile's examples, unless it asks for thousands.
_asked = settings.default.max_examples
few = settings(max_examples=_asked if _asked >= 2000 else max(10, _asked // 5))


def norm(x: Array) -> float:
    return float(np.linalg.norm(x))


@dataclass(frozen=True)
class Case:
    """A net, a target and an allocation."""

    net: Net
    z: torch.Tensor
    shares: tuple[float, ...]


@st.composite
def cases(draw: st.DrawFn, layers: tuple[int, int] = (1, 4), moving: float = 1.0) -> Case:
    chosen = net(
        draw(seeds),
        draw(st.integers(*layers)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 3)),
        stiffness=10.0 ** draw(st.integers(-2, 3)),
        condition=10.0 ** draw(st.integers(0, 6)),
        moving=moving,
    )
    length = draw(st.sampled_from([1.0, 0.0, 1e-3, 10.0]))
    way = torch.tensor(np.random.default_rng(draw(seeds)).standard_normal(chosen.width))
    kind = draw(st.sampled_from(["spread", "all", "last"]))
    shares = {
        "spread": chosen.spread,
        "all": (1.0,) * chosen.layers,
        "last": (*(0.0,) * (chosen.layers - 1), 1.0),
    }[kind]
    return Case(chosen, chosen.origin() + length * way, shares)


def unmoved(seed: int, layers: int, stiffness: float, *, alike: bool = False) -> Net:
    """Constant keys and no mixing: identity transport; `alike` makes all layers the same."""
    chosen = net(seed, layers, tokens=1, stiffness=stiffness, moving=0.0, mixing=0.0)
    if not alike:
        return chosen
    return replace(chosen, b=chosen.b[:1] * layers, G=chosen.G[:1] * layers)
