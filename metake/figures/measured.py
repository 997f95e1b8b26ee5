"""Matrices of real models, made by the library's own code: covariances, spectra and keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metake.data.records import read_records
from metake.geometry.covariance import collect
from metake.models.load import ASSETS, SMOLLM2, load
from metake.prompts import Batch, LookupPrompts
from metake.solvers.allocation import last
from metake.solvers.layered import LayeredSolver
from metake.texts import default_text

DEMOS = ("demo", "demo-gptj", "demo-llama")


@dataclass(frozen=True)
class Layer:
    """Of one edited layer: `moment` C (`d_k x d_k`) and `keys` (`d_k x n`) of test facts, fp32."""

    model: str
    moment: torch.Tensor
    keys: torch.Tensor


@cache
def measured(model: str = "demo") -> Layer:
    """Of a demo model: C from 4,096 tokens of its own text, and keys of eight test facts."""
    return _measure(model, 2, 4096, ASSETS / "world" / "test.json", 8)


@cache
def measured_real() -> Layer:
    """The same of the pretrained model that a package carries, from 40,960 tokens."""
    return _measure(SMOLLM2, 6, 40_960, ASSETS / "world" / "real_facts.json", 4)


def _measure(model: str, layer: int, tokens: int, facts: Path, count: int) -> Layer:
    """C, and keys at the subjects' last tokens."""
    loaded = load(model, device="cpu")
    arch, tokenizer = loaded.arch, loaded.tokenizer
    statistics = collect(arch, tokenizer, default_text(model), (layer,), tokens=tokens, progress=False)
    requests = [record.request for record in read_records(facts, count)]
    prompts = LookupPrompts.build(arch, Batch.build(arch, tokenizer, requests, ()), layer)
    _, keys = LayeredSolver(arch, {}, last((layer,))).origin(prompts)
    return Layer(model, statistics[layer], keys.T.contiguous())


@cache
def measured_spectra() -> tuple[NDArray[np.float64], ...]:
    """Eigenvalues of C of each demo model, ascending, negative rounding cut off."""
    spectra = []
    for model in DEMOS:
        values = torch.linalg.eigvalsh(measured(model).moment.double())
        spectra.append(values.clamp_min(0).numpy())
    return tuple(spectra)
