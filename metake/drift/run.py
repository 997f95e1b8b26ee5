"""The measurement of all edits, saved after each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from metake.drift.bench import DriftSetup
from metake.drift.layers import spectra
from metake.drift.verdict import judge
from metake.files import as_plain, read_record, write_record
from metake.methods.lookup_keys import lookup_keys
from metake.models.chat import described
from metake.models.trace import frozen
from metake.phases import phase
from metake.provenance import provenance
from metake.requests import EditRequest


def run(bench: DriftSetup, requests: list[EditRequest], data: str, out: Path, seed: int) -> dict[str, Any]:
    """Measure edits, and write `drift.json` after each of them; edits of an earlier run with the same inputs are kept.

    Args:
        bench: model, statistics and method.
        requests: the edits.
        data: name of the file of the edits.
        out: folder of `drift.json`.
        seed: seed of torch's random generator.

    Returns:
        The content of `drift.json`.

    Raises:
        MetakeError: an earlier `drift.json` is damaged.
    """
    model, layers = bench.model, bench.method.layers
    torch.manual_seed(seed)
    strengths = {factor: bench.at(factor) for factor in bench.factors}
    head = _head(bench, data, seed)
    path, edits = out / "drift.json", []
    if path.is_file():
        earlier = read_record(path, "remove it: the edits are measured again")
        if {k: earlier.get(k) for k in head} == as_plain(head):
            edits = earlier["edits"][: len(requests)]
    with (
        frozen(model.model),
        tqdm(total=len(requests), initial=len(edits), unit="edit", desc=head["model"], disable=None) as bar,
    ):
        for request in requests[len(edits) :]:
            with phase(f"edit {len(edits) + 1} of {len(requests)}"):
                edits.append(bench.measure(strengths, request))
            write_record(path, {**head, "edits": edits})
            bar.update()
        prompts = bench.method.batch(bench.model, requests, strengths[1.0][1])[1]
        keys = lookup_keys(bench.model, prompts, layers)
    between = spectra({layer: bench.statistics[layer].to(model.device) for layer in layers}, keys)
    verdicts = {
        "start": judge([edit["start"] for edit in edits]),
        "compensated": judge([edit["compensated"] for edit in edits]),
        **{name: judge([edit["strengths"][name] for edit in edits]) for name in edits[0]["strengths"]},
    }
    content = {**head, "between": between, "verdicts": verdicts, "edits": edits}
    write_record(path, content)
    return content


def _head(bench: DriftSetup, data: str, seed: int) -> dict[str, Any]:
    """Inputs of a measurement, as `drift.json` records them."""
    return {
        **provenance(bench.model.name, bench.model, bench.method.name, dated=False),
        "layers": list(bench.method.layers),
        "strength": "L2" if bench.method.constraint_setting == "l2" else "lambda",
        "data": data,
        "dtype": str(bench.model.model.dtype).removeprefix("torch."),
        "factors": list(bench.factors),
        "norms": bench.norms,
        "steps": bench.steps,
        "settings": bench.method.model_dump(mode="json"),
        "seed": seed,
        "chat": described(bench.model.tokenizer),
        "statistics": {
            "tokens": bench.statistics.provenance.tokens,
            "text": bench.statistics.provenance.text,
        },
    }
