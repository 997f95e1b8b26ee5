"""Token rows that an edit is planned with, and their lookup positions.

A request is planned with its bare prompt and with the prompt after unrelated contexts, so that the edit does not depend
on the position of the prompt in a text. Evaluation prompts are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Literal

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.models.chat import without_frame
from metake.models.editable import EditableModel
from metake.models.tokens import Row, count_tokens, encode
from metake.models.trace import frozen, run
from metake.requests import PLACEHOLDER, EditRequest
from metake.windows import WholeAnswer, Windows

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
        owner: index of the first window of the request it belongs to.
        row: its tokens.
        has_residual: whether the open loop adds the residuals at `row.lookups`, the edited tokens.
        template: the template of an edit's row; None for a KL prompt.
        scores_end: whether the prediction after the answer is scored.
        earlier: positions of earlier windows of the request, before `row.lookup`, whose residuals are constant.
    """

    owner: int
    row: Row
    has_residual: bool
    template: int | None = None
    scores_end: bool = False
    earlier: tuple[int, ...] = ()

    @property
    def windows(self) -> range:
        """Indices of the windows that the row belongs to: all of an edit's row, the first for a KL prompt."""
        return range(self.owner, self.owner + len(self.row.starts))

    def of_windows(self, windows: range) -> RowSpec | None:
        """The row with some of its windows, which ends with the last of them and has the first's lookup token.

        Args:
            windows: indices within the request; indices after its last window are ignored.

        Returns:
            None if the row has none of them. A KL prompt belongs to the first window.
        """
        row, count = self.row, len(self.row.starts)
        windows = windows[: max(0, count - windows.start)]
        if not windows:
            return None
        first, begin, end = windows[0], row.spans[windows[0]].start, row.spans[windows[-1]].stop
        starts = tuple(row.starts[window] - begin for window in windows)
        cut = Row(row.ids[: len(row) - row.answer + end], row.lookups[first], end - begin, starts)
        return replace(
            self,
            owner=self.owner + first,
            row=cut,
            scores_end=self.scores_end and windows.stop == count,
            earlier=row.lookups[:first],
        )

    @property
    def needed(self) -> int:
        """Number of tokens that a pass has to read: the whole row if the end of its answer is scored."""
        return len(self.row) if self.scores_end else self.row.needed


@dataclass(frozen=True)
class Batch:
    """All token rows of a batch of requests.

    A request has one window or several: spans of its answer, each with a position of its own at which a key is read and
    a residual is written. Residuals, keys and losses have one row per window, those of a request one after the other.

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
        first = self.first_windows
        edits = (
            RowSpec(first[i // self.templates], row, has_residual=True, template=i % self.templates)
            for i, row in enumerate(self.edits)
        )
        return (*edits, *self.kl_prompts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of windows per request."""
        return tuple(len(row.starts) for row in self.edits[:: self.templates])

    @property
    def first_windows(self) -> tuple[int, ...]:
        """Index of the first window of each request."""
        return tuple(accumulate(self.counts, initial=0))[:-1]

    @property
    def size(self) -> int:
        """Number of windows of all requests, n."""
        return sum(self.counts)

    @property
    def owners(self) -> Tensor:
        """`n`, index of each window's request."""
        return torch.tensor([i for i, count in enumerate(self.counts) for _ in range(count)])

    @property
    def order(self) -> Tensor:
        """`n`, index of each window within its request."""
        return torch.tensor([j for count in self.counts for j in range(count)])

    @property
    def window_lengths(self) -> Tensor:
        """`n`, number of answer tokens of each window."""
        return torch.tensor([len(span) for row in self.edits[:: self.templates] for span in row.spans])

    @property
    def lookup_positions(self) -> tuple[Tensor, Tensor]:
        """Row and column of each lookup token: per window one in every row of its request, the bare prompt's first."""
        at = [
            (row, self.edits[row].lookups[window])
            for i, count in enumerate(self.counts)
            for window in range(count)
            for row in range(i * self.templates, (i + 1) * self.templates)
        ]
        rows, columns = torch.tensor(at).T
        return rows, columns

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
        """Rows of `edits`, each up to its last lookup token."""
        return tuple(row.up_to_lookup for row in self.edits)

    @classmethod
    def build(
        cls,
        model: EditableModel,
        requests: Sequence[EditRequest],
        contexts: Sequence[str],
        lookup: Lookup | Sequence[Lookup] = "subject",
        windows: Windows | None = None,
    ) -> Batch:
        """Token rows of requests.

        Args:
            model: the model with its tokenizer, whose vocabulary and number of positions limit the rows.
            requests: the requests.
            contexts: texts that precede the prompt in the further rows of a request.
            lookup: the token whose key is edited, of all requests or of each: the last one of the subject, or of the
                prompt. With "prompt" the open loop adds no residual to the KL prompt about the subject.
            windows: division of the answers; by default one window each.

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
        limit, owner, windows = model.max_positions, 0, windows or WholeAnswer()
        for request, token in zip(requests, lookups, strict=True):
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
                edits.append(replace(row, starts=windows.starts(row.answer)))
            text, span = _filled(KL_PROMPT, request.subject, 0, request.subject)
            kl_prompts.append(
                RowSpec(owner, encode(tokenizer, text, subject=span), has_residual=token == "subject")
            )
            kl_prompts += [
                RowSpec(owner, encode(tokenizer, prompt), has_residual=False)
                for prompt in request.locality_prompts
            ]
            owner += _window_count(request, edits[-len(frames) :])
        return cls(tuple(requests), tuple(edits), tuple(kl_prompts), len(frames), tuple(lookups))


def _window_count(request: EditRequest, rows: Sequence[Row]) -> int:
    """Number of windows of a request, the same in every row."""
    counts = {len(row.starts) for row in rows}
    if len(counts) > 1:
        raise MetakeError(
            f"{request.name}: its answer has another number of tokens after a context; edit it with contexts=()"
        )
    return counts.pop()
