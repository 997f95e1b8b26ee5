"""Keys of requests at the lookup token, and the strength with which they have a given attenuation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.operator import Geometry
from metake.key_estimators import KeyEstimator
from metake.lookup_prompts import LookupPrompts, other_tokens, pick_tokens
from metake.models.ambient import exact_device
from metake.models.editable import EditableModel
from metake.models.tokens import length_buckets, pad
from metake.models.trace import run, upcast
from metake.planners.target_optimization import TargetOptimization, mean_within
from metake.prompts import Batch, Lookup
from metake.requests import EditRequest
from metake.solvers.layered import protecting
from metake.windows import Windows

# of SmolLM2's 2,383 CounterFact prompts that begin with the subject 53 are below; zsRE's are above 0.56
MIN_KEY_COSINE = 0.1


@dataclass(frozen=True)
class Group:
    """Requests that are planned and solved together.

    Attributes:
        members: which of the batch's requests they are.
        batch: their token rows.
        prompts: these up to the lookup tokens.
        plan: their open-loop plan; None to make one.
    """

    members: slice
    batch: Batch
    prompts: LookupPrompts
    plan: TargetOptimization | None = None

    def per_request(self, values: Tensor) -> Tensor:
        """Means over the windows of each request.

        Args:
            values: `layers x n`, one column per window.

        Returns:
            `layers x requests`.
        """
        if self.batch.size == len(self.batch.requests):
            return values
        return mean_within(values.T, self.batch.owners, len(self.batch.requests)).T


@torch.no_grad()
def _keys(model: EditableModel, prompts: LookupPrompts, layers: Sequence[int]) -> dict[int, Tensor]:
    """Keys of all tokens of the suffixes: layer -> `rows x width x d_k`."""
    trace = prompts.tokens.run(
        model, start=prompts.start, hidden=prompts.hidden, stop=max(layers), keys=layers
    )
    return {layer: trace.keys[layer].suffix for layer in layers}


def keys_in_contexts(
    model: EditableModel, prompts: LookupPrompts, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Keys at the lookup token in every context, of the model as it is.

    Args:
        model: the model.
        prompts: prefixes of the requests up to the lookup token.
        layers: layers whose keys are read.

    Returns:
        Layer -> `n templates x d_k`.
    """
    keys = _keys(model, prompts, layers)
    return {layer: upcast(prompts.at_lookup(keys[layer])) for layer in layers}


def realizability(
    model: EditableModel, prompts: LookupPrompts, geometries: Mapping[int, Geometry]
) -> tuple[Tensor, Tensor]:
    """Realizability of each window's mean key, and the cosine of its bare and mean keys.

    Args:
        model: the model.
        prompts: prefixes of the requests up to the lookup token.
        geometries: layer -> its geometry, without the keys that the prompts preserve.

    Returns:
        Two tensors, `layers x n`.
    """
    keys = _keys(model, prompts, list(geometries))
    rho, cosine = [], []
    for layer, geometry in geometries.items():
        at_lookup = upcast(prompts.at_lookup(keys[layer]))
        whole = protecting(geometry, prompts.preserved_keys(layer, keys[layer]))
        rho.append(whole.realizability(prompts.mean_key(at_lookup).T).cpu())
        cosine.append(prompts.key_cosine(at_lookup))
    return torch.stack(rho), torch.stack(cosine)


def lookup_keys(model: EditableModel, prompts: LookupPrompts, layers: Sequence[int]) -> dict[int, Tensor]:
    """Key of each request, of the model as it is.

    Args:
        model: the model.
        prompts: prefixes of the requests up to the lookup token.
        layers: layers whose keys are read.

    Returns:
        Layer -> `n x d_k`.
    """
    return {layer: prompts.mean_key(keys) for layer, keys in keys_in_contexts(model, prompts, layers).items()}


@torch.no_grad()
def other_keys(
    model: EditableModel, batch: Batch, layers: Sequence[int], weight: float = 1.0
) -> dict[int, Tensor]:
    """Keys of the other tokens of the bare prompts with their answers, of the model as it is, in passes of bounded size.

    Args:
        model: the model.
        batch: the batch.
        layers: layers whose keys are read.
        weight: factor of their second moment.

    Returns:
        Layer -> `p x d_k` in any order, times the root of the weight, or `d_k x d_k` in fp64 with the same second moment if
        p is larger than d_k.
    """
    rows, columns = other_tokens(batch)
    rows, texts = rows // batch.templates, batch.edits[:: batch.templates]
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for members in length_buckets([len(row) for row in texts], model.pass_tokens):
        ids = pad([texts[i] for i in members]).to(model.device)
        keys = run(model, ids, keys=layers, stop=max(layers)).keys
        place = torch.full((len(texts),), -1)
        place[members] = torch.arange(len(members))
        here = place[rows] >= 0
        for layer, parts in found.items():
            others = upcast(pick_tokens(columns[here], keys[layer], place[rows[here]]))
            parts.append(others.to(exact_device(others.device)))
            if sum(map(len, parts)) > 2 * parts[0].shape[1]:
                parts[:] = [_compressed(torch.cat(parts))]
    return {layer: math.sqrt(weight) * _compressed(torch.cat(parts)) for layer, parts in found.items()}


def _compressed(keys: Tensor) -> Tensor:
    """At most `d_k` keys with the same second moment `K_p K_p^T` as `p x d_k`, from a QR decomposition in fp64."""
    count, d_k = keys.shape  # the moment itself has the square of their condition number
    if count <= d_k:
        return keys
    factor: Tensor = torch.linalg.qr(keys.double(), mode="r").R
    return factor


def consistent_lookups(
    model: EditableModel, prompts: LookupPrompts, layers: Sequence[int]
) -> tuple[Lookup, ...]:
    """Token of each request whose key hardly depends on what precedes the prompt.

    Args:
        model: the model.
        prompts: prefixes of the requests up to the subject's last token.
        layers: the edited layers.

    Returns:
        `prompt` for requests whose key in the bare prompt and mean key in contexts have a cosine below `MIN_KEY_COSINE`
        at a layer, otherwise `subject`.
    """
    keys = keys_in_contexts(model, prompts, layers)
    lowest = torch.stack([prompts.key_cosine(keys[layer]) for layer in layers]).amin(0)
    return tuple("prompt" if cosine < MIN_KEY_COSINE else "subject" for cosine in lowest.tolist())


def batch_at(
    model: EditableModel,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layers: Sequence[int],
    lookup: Lookup,
    estimator: KeyEstimator,
    consistent: bool = False,
    windows: Windows | None = None,
) -> tuple[Batch, LookupPrompts]:
    """Token rows of requests, and their prefixes up to the lookup token.

    Args:
        model: the model.
        requests: the requests.
        contexts: texts that precede the prompts.
        layers: the edited layers.
        lookup: the subject's last token, or the prompt's.
        estimator: average of a request's keys.
        consistent: whether requests with inconsistent keys are read at the prompt's last token.
        windows: division of the answers; by default one window each.

    Returns:
        Input of the planner, and input of the solver.
    """
    preserve = windows is not None and windows.preserves

    def built(lookups: Lookup | Sequence[Lookup]) -> tuple[Batch, LookupPrompts]:
        batch = Batch.build(model, requests, contexts, lookups, windows)
        return batch, LookupPrompts.build(model, batch, layers[0], estimator, preserve)

    batch, prompts = built(lookup)
    if consistent and contexts:
        lookups = consistent_lookups(model, prompts, layers)
        batch, prompts = built(lookups) if "prompt" in lookups else (batch, prompts)
    if windows is not None and windows.constant_weight:
        prompts = replace(prompts, constant=other_keys(model, batch, layers, windows.constant_weight))
    return batch, prompts


def scale_for(eta: float, rho: Tensor) -> float:
    """Factor of a geometry with which the median attenuation of some keys is `eta`.

    A factor f of the geometry divides every rho by f, so the attenuations become `rho / (rho + f)`. For an odd
    number of keys the factor is `median(rho) (1 - eta) / eta`; for an even one it is the root of a quadratic
    equation, because the median is the mean of two attenuations.

    Args:
        eta: attenuation, between 0 and 1.
        rho: `n`, realizability of the keys in the geometry itself.

    Returns:
        The factor.

    Raises:
        MetakeError: the median key is not reachable in the geometry, so that no strength gives the attenuation.
    """
    ordered = rho.double().sort().values
    low, high = float(ordered[(len(rho) - 1) // 2]), float(ordered[len(rho) // 2])
    linear, product = (2 * eta - 1) * (low + high), 16 * eta * (1 - eta) * low * high
    root = math.sqrt(linear**2 + product)
    above = product / (root + linear) if linear > 0 else root - linear  # root - linear without cancellation
    factor = above / (4 * eta)
    if not 0 < factor < math.inf:
        raise MetakeError(
            "attenuation: the median key has rho = 0 in this geometry, so no strength gives it; "
            "take other layers, or a larger null space (keep)"
        )
    return factor
