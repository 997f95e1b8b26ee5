"""Token rows that an edit is planned with, and their lookup positions.

A request is planned with its bare prompt and with the prompt after unrelated contexts, so that the edit does not depend
on the position of the prompt in a text. Evaluation prompts are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Literal

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.key_estimators import BareAndContexts, KeyEstimator
from metake.models.chat import without_frame
from metake.models.editable import EditableModel
from metake.models.kv_cache import KVCache
from metake.models.prefix_batch import PrefixBatch, PrefixSuffix
from metake.models.tokens import Row, count_tokens, encode, pad
from metake.models.trace import frozen, run
from metake.requests import PLACEHOLDER, EditRequest

Lookup = Literal["subject", "prompt"]
SEEDS = ("The", "Therefore", "Because", "I", "You")  # first words of sampled contexts, as in MEMIT
KL_PROMPT = f"{PLACEHOLDER} is a"  # ROME's prompt of the KL term, which keeps what the subject is


@torch.no_grad()
def sample_contexts(model: EditableModel, length: int = 10, seed: int = 0) -> tuple[str, ...]:
    """Short texts sampled from the model (top 5), one per seed word.

    The CPU's generator samples from fp32 logits, so the texts depend on the device by rounding only.

    Args:
        model: the model; the chat template of its tokenizer is not applied.
        length: number of tokens of each text.
        seed: of the generator.

    Returns:
        The texts, without braces.

    Reference: MEMIT's context templates (arXiv:2210.07229).
    """
    generator = torch.Generator().manual_seed(seed)
    tokenizer = without_frame(model.tokenizer)
    texts = []
    with frozen(model.model):
        for word in SEEDS:
            ids = list(encode(tokenizer, word).ids)
            while len(ids) < length:
                logits = run(
                    model, torch.tensor([ids]), positions=(torch.tensor([0]), torch.tensor([len(ids) - 1]))
                ).logits
                best = torch.topk(logits[0].float().cpu(), min(5, logits.shape[1]))
                draw = torch.multinomial(torch.softmax(best.values, 0), 1, generator=generator)
                ids.append(int(best.indices[draw]))
            text = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
            texts.append(text.replace("{", " ").replace("}", " "))
    return tuple(texts)


def templates(contexts: Sequence[str]) -> tuple[str, ...]:
    """Templates of a request's rows: the bare one, then one per context; the gap takes the request's prompt.

    Args:
        contexts: unrelated texts that precede the prompt.

    Returns:
        `len(contexts) + 1` templates.
    """
    return (PLACEHOLDER, *(f"{context.rstrip(' .')}. {PLACEHOLDER}" for context in contexts))


def _filled(template: str, text: str, start: int, subject: str) -> tuple[str, tuple[int, int]]:
    """A template with a text in its last gap, and the subject's span; the subject begins in the text at `start`."""
    at = template.rindex(PLACEHOLDER)
    begin = at + start
    return template[:at] + text + template[at + len(PLACEHOLDER) :], (begin, begin + len(subject))


@dataclass(frozen=True)
class RowSpec:
    """A token row and its role in the losses: an edit's row, or a prompt of the KL term (ROME's `kl_prompts`).

    An edit should leave the prediction of a KL prompt at `row.lookup` unchanged.

    Attributes:
        owner: index of the request it belongs to.
        row: its tokens.
        has_residual: whether the open loop adds the residual at `row.lookup`, the edited token.
        template: the template of an edit's row; None for a KL prompt.
        scores_end: whether the prediction after the answer is scored.
    """

    owner: int
    row: Row
    has_residual: bool
    template: int | None = None
    scores_end: bool = False

    @property
    def needed(self) -> int:
        """Number of tokens that a pass has to read: the whole row if the end of its answer is scored."""
        return len(self.row) if self.scores_end else self.row.needed


@dataclass(frozen=True)
class Batch:
    """All token rows of a batch of requests.

    Attributes:
        requests: the requests.
        edits: one row per request and template, answer included.
        kl_prompts: the prompts of the KL term: one about each subject, and the requests' locality prompts.
        templates: number of rows of a request in `edits`.
        lookups: the token whose key is edited, per request; empty if that is not known.

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo", device="cpu")
        >>> request = mk.EditRequest("Which city was {} born in?", "Ada", "Oslo")
        >>> batch = mk.Batch.build(model, [request], contexts=["Yes."])
        >>> batch.templates, len(batch.edits), len(batch.lookup_rows)
        (2, 2, 2)
    """

    requests: tuple[EditRequest, ...]
    edits: tuple[Row, ...]
    kl_prompts: tuple[RowSpec, ...]
    templates: int
    lookups: tuple[Lookup, ...] = ()

    @property
    def specs(self) -> tuple[RowSpec, ...]:
        """All rows with their roles: those of the edits, then the KL prompts."""
        edits = (
            RowSpec(i // self.templates, row, has_residual=True, template=i % self.templates)
            for i, row in enumerate(self.edits)
        )
        return (*edits, *self.kl_prompts)

    @property
    def subjects(self) -> Tensor:
        """`requests`, index of the first request with the same subject."""
        names = [request.subject for request in self.requests]
        return torch.tensor([names.index(name) for name in names])

    @property
    def prefix_lengths(self) -> tuple[int, ...]:
        """Number of tokens that all rows of a template share, per template: its context; 0 for the bare prompt."""
        if len(self.requests) == 1:
            return (0,) * self.templates
        shared = [0]
        for template in range(1, self.templates):
            rows = (row.ids[: row.lookup] for row in self.edits[template :: self.templates])
            columns = zip(*rows, strict=False)  # as long as the shortest
            shared.append(sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns)))
        return tuple(shared)

    @property
    def lookup_rows(self) -> tuple[Row, ...]:
        """Rows of `edits`, each up to its lookup token."""
        return tuple(row.up_to_lookup for row in self.edits)

    @classmethod
    def build(
        cls,
        model: EditableModel,
        requests: Sequence[EditRequest],
        contexts: Sequence[str],
        lookup: Lookup | Sequence[Lookup] = "subject",
    ) -> Batch:
        """Token rows of requests.

        Args:
            model: the model with its tokenizer, whose vocabulary and number of positions limit the rows.
            requests: the requests.
            contexts: texts that precede the prompt in the further rows of a request.
            lookup: the token whose key is edited, of all requests or of each: the last one of the subject, or of the
                prompt. With "prompt" the open loop adds no residual to the KL prompt about the subject.

        Returns:
            The batch.

        Raises:
            MetakeError: no request, a text that the tokenizer cannot encode, a target without tokens, or a prompt too
                long for the model.
        """
        if not requests:
            raise MetakeError("requests: none given")
        frames, tokenizer = templates(contexts), model.tokenizer
        lookups = [lookup] * len(requests) if isinstance(lookup, str) else lookup
        edits, kl_prompts = [], []
        limit = model.max_positions
        for owner, (request, token) in enumerate(zip(requests, lookups, strict=True)):
            assert request.start is not None
            try:
                count_tokens(tokenizer, [request.text, request.target_new, *request.locality_prompts])
            except MetakeError as error:
                raise MetakeError(f"{request.name}: {error}") from error
            for frame in frames:
                text, span = _filled(frame, request.text, request.start, request.subject)
                row = encode(tokenizer, text, request.target_new, span if token == "subject" else None)
                if row.answer == 0:
                    raise MetakeError(f"{request.name}: target {request.target_new!r} has no tokens")
                if limit is not None and len(row) > limit:
                    raise MetakeError(
                        f"{request.name}: {len(row)} tokens with its context, the model takes {limit}; shorten it"
                    )
                model.check_tokens(max(row.ids))
                edits.append(row)
            text, span = _filled(KL_PROMPT, request.subject, 0, request.subject)
            kl_prompts.append(
                RowSpec(owner, encode(tokenizer, text, subject=span), has_residual=token == "subject")
            )
            kl_prompts += [
                RowSpec(owner, encode(tokenizer, prompt), has_residual=False)
                for prompt in request.locality_prompts
            ]
        return cls(tuple(requests), tuple(edits), tuple(kl_prompts), len(frames), tuple(lookups))


@dataclass(frozen=True)
class LookupPrompts:
    """Prompts of a batch up to the lookup token, with the residual stream before the first edited block.

    Attributes:
        tokens: the rows; those of a request are adjacent, the bare prompt first, which has no shared prefix.
        last: `rows`, lookup position within each suffix.
        hidden: residual stream before block `start`.
        start: first edited block.
        templates: number of rows of a request.
        estimator: average of a request's keys over its rows.
        cache: KV cache of the tokens before the lookup token, where these are constant; see `resumed`.
    """

    tokens: PrefixBatch
    last: Tensor
    hidden: PrefixSuffix
    start: int
    templates: int
    estimator: KeyEstimator
    cache: KVCache | None = None

    @classmethod
    @torch.no_grad()
    def build(
        cls, model: EditableModel, batch: Batch, start: int, estimator: KeyEstimator | None = None
    ) -> LookupPrompts:
        """Prompts of a batch, and one pass up to block `start`.

        Args:
            model: the model.
            batch: token rows of the requests.
            start: first edited block.
            estimator: average of a request's keys; by default `BareAndContexts`.

        Returns:
            The prompts with the stream of the model as it is.
        """
        rows, count = batch.lookup_rows, len(batch.requests)
        lengths = [len(row) for row in rows]
        prefixes = batch.prefix_lengths if model.can_resume(max(lengths)) else (0,) * batch.templates
        tokens = PrefixBatch.of(
            pad(rows).to(model.device), lengths, prefixes * count, list(range(batch.templates)) * count
        )
        hidden = tokens.run(model, stop=start, inputs=(start,)).inputs[start]
        last = torch.tensor([row.lookup for row in rows]) - tokens.prefix_lengths
        return cls(tokens, last, hidden, start, batch.templates, estimator or BareAndContexts())

    @torch.no_grad()
    def resumed(self, model: EditableModel, batch: Batch, top: int) -> LookupPrompts:
        """Prompts of the lookup tokens alone; the tokens before them are constant, as in the model as it is.

        Args:
            model: the model.
            batch: the batch of these prompts.
            top: last block that passes run through.

        Returns:
            Rows of one token with a KV cache; the prompts themselves for a model that cannot resume such rows.
        """
        rows = batch.lookup_rows
        lookups = torch.tensor([row.lookup for row in rows])
        if not model.can_resume(int(lookups.max()) + 1):
            return self
        ids = pad(rows).to(model.device)
        trace = run(model, ids, stop=top, inputs=(self.start,), record_from=self.start)
        most = int(lookups.max())
        known = {n: (k[:, :, :most], v[:, :, :most]) for n, (k, v) in trace.key_values.items()}
        at = torch.arange(len(rows)), lookups
        single = ids[at][:, None]
        tokens = PrefixBatch.of(single, [1] * len(rows), [0] * len(rows), [0] * len(rows))
        hidden = PrefixSuffix(trace.inputs[self.start][at][:, None])
        cache = KVCache(known, lookups) if most else None
        return replace(self, tokens=tokens, last=torch.zeros_like(lookups), hidden=hidden, cache=cache)

    @cached_property
    def bare_cache(self) -> KVCache | None:
        """KV cache of the bare prompts; None without one."""
        if self.cache is None:
            return None
        return self.cache.rows(torch.arange(0, len(self.last), self.templates))

    def at_lookup(self, stream: Tensor) -> Tensor:
        """Values at the lookup tokens, `rows x d`.

        Args:
            stream: values of the suffixes, `rows x width x d`.

        Returns:
            One value per row.
        """
        return pick_tokens(self.last, stream)

    def mean_key(self, keys: Tensor) -> Tensor:
        """Key of each request, `requests x d_k`.

        Args:
            keys: keys at the lookup tokens, `rows x d_k`.

        Returns:
            The estimator's averages.
        """
        return self.estimator.estimate(keys.reshape(-1, self.templates, keys.shape[-1]))

    def key_cosine(self, keys: Tensor) -> Tensor:
        """Cosine of each bare prompt's key with the mean key of its contexts, `requests`; 1 without contexts.

        Near 0 the two are different keys, and an edit at their mean does not change the bare prompt: the token is an
        attention sink there, or the subject has other tokens than after a space.

        Args:
            keys: keys at the lookup tokens, `rows x d_k`.

        Returns:
            Values between -1 and 1.

        Reference: arXiv:2406.11263, on edits at such keys that collapse models.
        """
        grouped = keys.reshape(-1, self.templates, keys.shape[-1])
        if self.templates == 1:
            return torch.ones(len(grouped))
        return torch.cosine_similarity(grouped[:, 0], grouped[:, 1:].mean(1), dim=1).cpu()

    def bare(self, values: Tensor) -> Tensor:
        """Values of the bare prompts, `requests x ...`.

        Args:
            values: values of all rows, `rows x ...`.

        Returns:
            Every request's first row.
        """
        return values[:: self.templates]

    def bare_rows(self, hidden: PrefixSuffix) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, lookup positions and stream of the bare prompts, up to the last lookup token.

        Args:
            hidden: residual stream of all rows.

        Returns:
            Ids, `requests x length`; positions, `requests`; stream, `requests x length x d_v`.
        """
        last = self.bare(self.last)
        length = int(last.max()) + 1
        return self.bare(self.tokens.ids.suffix)[:, :length], last, self.bare(hidden.suffix)[:, :length]


def pick_tokens(positions: Tensor, stream: Tensor) -> Tensor:
    """Values at one position of each row, `rows x d`.

    Args:
        positions: `rows`.
        stream: `rows x length x d`.

    Returns:
        One value per row.
    """
    rows = torch.arange(len(positions), device=stream.device)
    return stream[rows, positions.to(stream.device)]
