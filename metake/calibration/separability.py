"""Separability of facts: how alike their keys are, at the subject's last token and at the prompt's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from metake.geometry.per_expert import dense
from metake.geometry.statistics import Statistics
from metake.lookup_prompts import pick_tokens
from metake.models.editable import EditableModel
from metake.models.tokens import pad
from metake.models.trace import frozen, run, upcast
from metake.prompts import Batch, Lookup
from metake.requests import EditRequest

JITTER = 1e-3  # of C's mean eigenvalue: the smallest ones are noise of the statistics
ENOUGH = 8  # requests, below which other subjects are put into the same prompts
NAMES = (
    "Albert Einstein",
    "Marie Curie",
    "Paris",
    "The Beatles",
    "Leonardo da Vinci",
    "Microsoft",
    "Nelson Mandela",
    "Titanic",
)


def completed(requests: Sequence[EditRequest]) -> list[EditRequest]:
    """Requests with at least `ENOUGH` different subjects: the same prompts with well-known names, if there are fewer.

    Args:
        requests: the requests.

    Returns:
        The requests, with further ones behind them.
    """
    subjects = {request.subject for request in requests}
    others = [name for name in NAMES if name not in subjects][: max(0, ENOUGH - len(subjects))]
    further = [replace(requests[i % len(requests)], subject=name, name="") for i, name in enumerate(others)]
    return [*requests, *further]


@torch.no_grad()
def bare_keys(
    model: EditableModel, requests: Sequence[EditRequest], lookup: Lookup, layers: Sequence[int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Keys of bare prompts and the stream after each layer, at the lookup token, from one pass.

    Args:
        model: the model.
        requests: the requests.
        lookup: the subject's last token, or the prompt's.
        layers: layers that are read.

    Returns:
        Layer -> keys, `n x d_k`; layer -> stream, `n x d_v`; both fp32.
    """
    rows = Batch.build(model, requests, (), lookup).lookup_rows
    with frozen(model.model):
        trace = run(
            model,
            pad(rows).to(model.device),
            keys=layers,
            outputs=layers,
            stop=max(layers),
        )
    at = torch.tensor([row.lookup for row in rows])
    keys = {n: upcast(pick_tokens(at, trace.keys[n])) for n in layers}
    return keys, {n: upcast(pick_tokens(at, trace.outputs[n])) for n in layers}


def mean_cosine(keys: Tensor, moment: Tensor | None) -> float:
    """Mean |cos| of pairs of keys in the metric of C^-1, in which an edit at one key disturbs the others.

    Args:
        keys: `n x d_k`, of at least two requests.
        moment: C, `d_k x d_k`; None takes the identity.

    Returns:
        A value between 0 (every fact has a key of its own) and 1 (all facts share one).
    """
    columns = keys.double().T
    if moment is not None:
        metric = dense(moment).to(columns.device).double()
        metric = metric + JITTER * metric.trace() / len(metric) * torch.eye(len(metric)).to(metric)
        columns = torch.linalg.solve_triangular(torch.linalg.cholesky(metric), columns, upper=False)
    units = normalize(columns, dim=0)
    cosines = (units.T @ units).abs().fill_diagonal_(0)
    return float(cosines.sum()) / (len(cosines) * (len(cosines) - 1))


def separability(keys: dict[int, Tensor], statistics: Statistics | None) -> dict[int, float]:
    """Mean |cos| of keys per layer; see `mean_cosine`.

    Args:
        keys: layer -> `n x d_k`.
        statistics: second moments of the layers' keys; None takes the identity.

    Returns:
        Layer -> mean |cos|.
    """
    return {
        layer: mean_cosine(of, None if statistics is None else statistics[layer])
        for layer, of in keys.items()
    }


def bare_measures(
    model: EditableModel,
    requests: Sequence[EditRequest],
    lookup: Lookup,
    layers: Sequence[int],
    statistics: Statistics | None,
) -> tuple[dict[int, float], dict[int, float]]:
    """Separability of the bare prompts' keys, and the size of the residual stream, at the lookup token.

    Args:
        model: the model.
        requests: the requests; see `completed`.
        lookup: the subject's last token, or the prompt's.
        layers: layers that are read.
        statistics: second moments of the layers' keys; None takes the identity.

    Returns:
        Layer -> mean |cos|, and layer -> root mean square of the stream, the median over requests.
    """
    keys, stream = bare_keys(model, completed(requests), lookup, layers)
    scale = {n: float(h.square().mean(1).sqrt().median()) for n, h in stream.items()}
    return separability(keys, statistics), scale
