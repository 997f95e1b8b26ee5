"""Covariances, spectra and keys of models, measured by the library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from metake.data.records import read_records
from metake.figures.numbers import Array
from metake.geometry.covariance import collect
from metake.lookup_prompts import LookupPrompts
from metake.models.known import SMOLLM2
from metake.models.load import load
from metake.prompts import Batch
from metake.shipped import ASSETS, DEMOS
from metake.solvers.allocation import last
from metake.solvers.layered import LayeredSolver
from metake.texts import default_text


@dataclass(frozen=True)
class Layer:
    """Measurements of an edited layer, fp32.

    Attributes:
        model: name of the model.
        moment: second moment C of the keys, `d_k x d_k`.
        keys: keys of test facts, `d_k x n`.
    """

    model: str
    moment: torch.Tensor
    keys: torch.Tensor


@cache
def measured(model: str = "demo") -> Layer:
    """Measurements of a demo model: C from 4,096 tokens of its own text, and keys of eight test facts.

    Args:
        model: name of the demo model.

    Returns:
        Measurements of layer 2.
    """
    return _measure(model, 2, 4096, ASSETS / "world" / "test.json", 8)


@cache
def measured_real() -> Layer:
    """Measurements of SmolLM2: C of layer 6 from 40,960 tokens, and keys of four facts."""
    return _measure(SMOLLM2, 6, 40_960, ASSETS / "world" / "real_facts.json", 4)


def _measure(name: str, layer: int, tokens: int, facts: Path, count: int) -> Layer:
    """C of a layer, and the keys at the last tokens of the subjects."""
    model = load(name, device="cpu")
    tokenizer = model.tokenizer
    statistics = collect(model, tokenizer, default_text(name), (layer,), tokens=tokens, progress=False)
    requests = [record.request for record in read_records(facts, count)]
    prompts = LookupPrompts.build(model, Batch.build(model, requests, ()), layer)
    _, keys = LayeredSolver(model, {}, last((layer,))).unedited_stream_and_key(prompts)
    return Layer(name, statistics[layer], keys.T.contiguous())


def available() -> tuple[str, ...]:
    """Names of the demo models of this installation; a wheel contains the first one only."""
    return tuple(name for name in DEMOS if (ASSETS / name / "config.json").is_file())


def geometry(condition: float, weight: float = 100.0) -> tuple[torch.Tensor, float, float, Array]:
    """Geometry of the demo model with a given condition number.

    Args:
        condition: condition number of G.
        weight: lambda.

    Returns:
        C (`d_k x d_k`), lambda, the ridge beta, and `G = lambda C + beta I` in fp64.
    """
    C = measured("demo").moment
    beta = weight * float(torch.linalg.eigvalsh(C.double())[-1]) / condition
    return C, weight, beta, weight * C.double().numpy() + beta * np.eye(len(C))


@cache
def measured_spectra() -> tuple[Array, ...]:
    """Eigenvalues of C of each demo model, ascending; those below 0 by rounding are set to 0."""
    spectra = []
    for model in DEMOS:
        values = torch.linalg.eigvalsh(measured(model).moment.double())
        spectra.append(values.clamp_min(0).numpy())
    return tuple(spectra)
