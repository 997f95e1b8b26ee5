"""CounterFact's metrics: the likelihoods of the new and the old target on edited, paraphrased and other prompts.

Per record and prompt, `NLL(x)` is the mean negative log-likelihood per token of a target x:

    success      NLL(new) < NLL(true) on the edited prompt and its paraphrases; the reverse on prompts about
                 neighbors, whose answer is the true target
    magnitude    exp(-NLL(new)) - exp(-NLL(true)), or its negative on neighbors
    fluency      entropy, in bits, of the bigrams and trigrams of sampled text, (2/3 H_2 + 4/3 H_3) / 2;
                 low where a model repeats itself
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from metake.data.record import Record
from metake.models.editable import EditableModel
from metake.models.greedy import plain_generation
from metake.models.tokens import Row, answer_positions, encode, length_buckets, pad
from metake.models.trace import frozen, run

SUCCESSES = ("efficacy_success", "paraphrase_success", "neighborhood_success")
MAGNITUDES = ("efficacy_magnitude", "paraphrase_magnitude", "neighborhood_magnitude")


@torch.no_grad()
def target_losses(model: EditableModel, rows: Sequence[Row], max_tokens: int) -> np.ndarray:
    """Mean NLL per answer token of every row, in nats, fp64 (rows,).

    Args:
        model: the model.
        rows: token sequences that end with an answer.
        max_tokens: padded tokens per forward pass.

    Returns:
        one loss per row.
    """
    losses = np.full(len(rows), np.nan)
    for group in length_buckets([len(row) for row in rows], max_tokens):
        members = [rows[i] for i in group]
        at_rows, at_columns, labels = answer_positions(members)
        logits = run(model, pad(members), positions=(at_rows, at_columns)).logits.float()
        nll = torch.nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="none").cpu()
        for i, part in zip(group, torch.split(nll, [row.answer for row in members]), strict=True):
            losses[i] = float(part.mean())
    return losses


def compare_targets(
    model: EditableModel,
    records: Sequence[Record],
    measured: Sequence[int],
    max_tokens: int | None = None,
) -> dict[str, np.ndarray]:
    """Success and magnitude of every record, by metric; NaN for a record without a true target.

    Args:
        model: the model with its tokenizer.
        records: all records.
        measured: positions of the measured records.
        max_tokens: padded tokens per forward pass; None takes what suits the device.

    Returns:
        metric -> values (records,), each the mean over the prompts of a record.

    Reference:
        ROME (Meng et al., 2022), CounterFact's efficacy, paraphrase and neighborhood scores.
    """
    rows: list[Row] = []
    probes: list[tuple[int, int]] = []  # record, kind
    for index in measured:
        record = records[index]
        if not record.target_true:
            continue
        prompts = [(record.request.text, 0), *((p, 1) for p in record.rephrases)]
        for prompt, kind in [*prompts, *((p, 2) for p in record.neighbors)]:
            probes.append((index, kind))
            rows += [
                encode(model.tokenizer, prompt, target)
                for target in (record.request.target_new, record.target_true)
            ]
    losses = target_losses(model, rows, max_tokens or 2 * model.pass_tokens).reshape(-1, 2)
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for (index, kind), (new, true) in zip(probes, losses, strict=True):
        sign = -1 if kind == 2 else 1
        found.setdefault((index, kind), []).append(
            (float(sign * (true - new) > 0), float(sign * (np.exp(-new) - np.exp(-true))))
        )
    values = {name: np.full(len(records), np.nan) for name in (*SUCCESSES, *MAGNITUDES)}
    for (index, kind), pairs in found.items():
        values[SUCCESSES[kind]][index], values[MAGNITUDES[kind]][index] = np.mean(pairs, 0)
    return values


def ngram_entropy(text: str) -> float:
    """Weighted entropy of the bigrams and trigrams of a text's words, in bits; 0 for a text without any.

    Args:
        text: the text.

    Returns:
        (2/3 H_2 + 4/3 H_3) / 2.
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    total = 0.0
    for n, weight in ((2, 2 / 3), (3, 4 / 3)):
        counts = np.array(list(Counter(zip(*(words[i:] for i in range(n)), strict=False)).values()), float)
        if len(counts):
            shares = counts / counts.sum()
            total += weight * float(-(shares * np.log2(shares)).sum())
    return total / 2


def fluency(texts: Sequence[str]) -> float:
    """Mean n-gram entropy of texts, in bits.

    Args:
        texts: at least one text.

    Returns:
        the mean of `ngram_entropy`.
    """
    return float(np.mean([ngram_entropy(text) for text in texts]))


@torch.no_grad()
def sample_texts(
    model: EditableModel, record: Record, *, length: int = 100, most: int = 10, seed: int = 0
) -> list[str]:
    """Texts sampled (top 5) from the record's generation prompts, one each, prompt included.

    Args:
        model: the model with its tokenizer.
        record: the record; without generation prompts its edited prompt is continued.
        length: tokens of each text, prompt included.
        most: maximum number of prompts.
        seed: seed of the sampling; the global generator is as before afterwards.

    Returns:
        the decoded texts.
    """
    prompts = (record.generation_prompts or (record.request.text,))[:most]
    state, tokenizer = torch.random.get_rng_state(), model.tokenizer
    torch.manual_seed(seed)
    texts = []
    try:
        with frozen(model.model), plain_generation(model.model, tokenizer):
            for prompt in prompts:
                ids = torch.tensor([encode(tokenizer, prompt).ids])
                total = min(length, model.max_positions or length)
                out = model.model.generate(
                    ids.to(model.device),
                    attention_mask=torch.ones_like(ids).to(model.device),
                    do_sample=True,
                    top_k=5,
                    max_new_tokens=max(1, total - ids.shape[1]),
                )
                texts.append(tokenizer.decode(out[0], skip_special_tokens=True))
    finally:
        torch.random.set_rng_state(state)
    return texts
