"""The texts that an edit is planned with, and the places in them that matter.

A request is planned in several contexts: its bare prompt and the prompt after some unrelated text,
so that the edit does not depend on standing at the beginning. Nothing here is an evaluation prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.key_estimators import BareAndContexts, KeyEstimator
from metake.models.architecture import Architecture
from metake.models.chat import without_frame
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import Row, count_tokens, encode, pad
from metake.models.trace import frozen, run
from metake.requests import GAP, Request

Lookup = Literal["subject", "prompt"]
SEEDS = ("The", "Therefore", "Because", "I", "You")  # first words of sampled contexts, as in MEMIT
KL_PROMPT = f"{GAP} is a"  # ROME's prompt of the KL term, which keeps what the subject is


@torch.no_grad()
def sample_contexts(arch: Architecture, tokenizer: Any, length: int = 10, seed: int = 0) -> tuple[str, ...]:
    """One short text per seed word, sampled from the model (top 5), seeded.

    Sampled on the CPU's generator from fp32 logits, so the texts do not depend on the device
    beyond rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    tokenizer = without_frame(tokenizer)
    texts = []
    with frozen(arch.model):
        for word in SEEDS:
            ids = list(encode(tokenizer, word).ids)
            while len(ids) < length:
                logits = run(
                    arch, torch.tensor([ids]), positions=(torch.tensor([0]), torch.tensor([len(ids) - 1]))
                ).logits
                best = torch.topk(logits[0].float().cpu(), min(5, logits.shape[1]))
                draw = torch.multinomial(torch.softmax(best.values, 0), 1, generator=generator)
                ids.append(int(best.indices[draw]))
            text = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
            texts.append(text.replace("{", " ").replace("}", " "))
    return tuple(texts)


def templates(contexts: Sequence[str]) -> tuple[str, ...]:
    """The bare template and one per context; the request's own template goes into the gap."""
    return (GAP, *(f"{context.rstrip(' .')}. {GAP}" for context in contexts))


def _filled(template: str, text: str, start: int, subject: str) -> tuple[str, tuple[int, int]]:
    """A template with a text in its last gap, and where the subject, which begins in the text at `start`, stands."""
    at = template.rindex(GAP)
    begin = at + start
    return template[:at] + text + template[at + len(GAP) :], (begin, begin + len(subject))


@dataclass(frozen=True)
class KLPrompt:
    """A prompt of the KL term: an edit should leave its prediction at `row.lookup` unchanged (ROME's `kl_prompts`).

    Attributes:
        owner: index of the request it belongs to.
        has_residual: whether `row.lookup` is the subject's last token, where the open loop adds the residual.
    """

    owner: int
    row: Row
    has_residual: bool


@dataclass(frozen=True)
class Batch:
    """All token rows of a batch of requests.

    Attributes:
        edits: per request, one row per template, answer included.
        kl_prompts: the prompts of the KL term.
        templates: how many rows a request has in `edits`.
    """

    requests: tuple[Request, ...]
    edits: tuple[Row, ...]
    kl_prompts: tuple[KLPrompt, ...]
    templates: int

    @property
    def subjects(self) -> Tensor:
        """`n`, a number per request that those of the same subject share."""
        names = [request.subject for request in self.requests]
        return torch.tensor([names.index(name) for name in names])

    @property
    def prefix_lengths(self) -> tuple[int, ...]:
        """Per template, with how many tokens all its rows begin: its context's. The bare one stays whole."""
        if len(self.requests) == 1:
            return (0,) * self.templates
        shared = [0]
        for template in range(1, self.templates):
            prompts = (row.ids[: row.lookup] for row in self.edits[template :: self.templates])
            columns = zip(*prompts, strict=False)  # as long as the shortest
            shared.append(sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns)))
        return tuple(shared)

    @property
    def prompts(self) -> tuple[Row, ...]:
        """Rows of `edits` cut after the lookup token."""
        return tuple(row.up_to_lookup for row in self.edits)

    @classmethod
    def build(
        cls,
        arch: Architecture,
        tokenizer: Any,
        requests: Sequence[Request],
        contexts: Sequence[str],
        lookup: Lookup = "subject",
    ) -> Batch:
        """Tokenise.

        Args:
            lookup: the token that a request's key is read at: its subject's last, or its prompt's. A plan that
                writes at the latter does not change the KL prompt about the subject.

        Raises:
            MetakeError: no request, a text that the tokenizer cannot say, a target without tokens, or a prompt too
                long for the model.
        """
        if not requests:
            raise MetakeError("requests: none given")
        frames = templates(contexts)
        edits, kl_prompts = [], []
        limit = arch.max_positions
        for owner, request in enumerate(requests):
            assert request.start is not None
            try:
                count_tokens(tokenizer, [request.text, request.target, *request.locality])
            except MetakeError as error:
                raise MetakeError(f"{request.name}: {error}") from error
            for frame in frames:
                text, span = _filled(frame, request.text, request.start, request.subject)
                row = encode(tokenizer, text, request.target, span if lookup == "subject" else None)
                if row.answer == 0:
                    raise MetakeError(f"{request.name}: target {request.target!r} has no tokens")
                if limit is not None and len(row) > limit:
                    raise MetakeError(
                        f"{request.name}: {len(row)} tokens with its context, the model takes {limit}; shorten it"
                    )
                arch.check_tokens(max(row.ids))
                edits.append(row)
            text, span = _filled(KL_PROMPT, request.subject, 0, request.subject)
            kl_prompts.append(
                KLPrompt(owner, encode(tokenizer, text, subject=span), has_residual=lookup == "subject")
            )
            kl_prompts += [
                KLPrompt(owner, encode(tokenizer, prompt), has_residual=False) for prompt in request.locality
            ]
        return cls(tuple(requests), tuple(edits), tuple(kl_prompts), len(frames))


@dataclass(frozen=True)
class LookupPrompts:
    """What the solver needs of a batch: its prompts and the stream before the first edited block.

    Attributes:
        tokens: the prompts; rows of a request stand together, the bare one first, which is whole.
        last: lookup position per row, in its own part.
        hidden: the stream before block `start`.
        estimator: how a request's keys become one.
    """

    tokens: PrefixBatch
    last: Tensor
    hidden: PrefixSuffix
    start: int
    templates: int
    estimator: KeyEstimator

    @classmethod
    @torch.no_grad()
    def build(
        cls, arch: Architecture, batch: Batch, start: int, estimator: KeyEstimator | None = None
    ) -> LookupPrompts:
        rows, count = batch.lookup_rows, len(batch.requests)
        lengths = [len(row) for row in rows]
        prefixes = batch.prefix_lengths if arch.can_resume(max(lengths)) else (0,) * batch.templates
        tokens = PrefixBatch.of(
            pad(rows).to(arch.device), lengths, prefixes * count, list(range(batch.templates)) * count
        )
        hidden = tokens.run(arch, stop=start, inputs=(start,)).inputs[start]
        last = torch.tensor([row.lookup for row in rows]) - tokens.prefix_lengths
        return cls(tokens, last, hidden, start, batch.templates, estimator or BareAndContexts())

    def at_lookup(self, stream: Tensor) -> Tensor:
        """`rows x length x d` -> `rows x d`."""
        return pick_tokens(self.last, stream)

    def mean_key(self, keys: Tensor) -> Tensor:
        """Keys at the lookup, `rows x d_k` -> one per request, `requests x d_k`."""
        return self.estimator.estimate(keys.reshape(-1, self.templates, keys.shape[-1]))

    def key_cosine(self, keys: Tensor) -> Tensor:
        """Keys at the lookup, `rows x d_k` -> cosine of each bare prompt's with its contexts' mean, `requests`.

        1 where there are no contexts. Near 0, the two are different keys and no edit at their mean reaches the
        bare prompt: the token is an attention sink there (arXiv:2406.11263 has edits that collapse models by it).
        """
        grouped = keys.reshape(-1, self.templates, keys.shape[-1])
        if self.templates == 1:
            return torch.ones(len(grouped))
        return torch.cosine_similarity(grouped[:, 0], grouped[:, 1:].mean(1), dim=1).cpu()

    def bare(self, values: Tensor) -> Tensor:
        """Every request's first row of `rows x ...`."""
        return values[:: self.templates]

    def bare_rows(self, hidden: PrefixSuffix) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, lookup positions and stream (of `hidden`, all rows) of the bare prompts, no longer than needed."""
        last = self.bare(self.last)
        length = int(last.max()) + 1
        return self.bare(self.tokens.ids.suffix)[:, :length], last, self.bare(hidden.suffix)[:, :length]


def pick_tokens(positions: Tensor, stream: Tensor) -> Tensor:
    """`rows x length x d` -> `rows x d`, one position of each row."""
    rows = torch.arange(len(positions), device=stream.device)
    return stream[rows, positions.to(stream.device)]
