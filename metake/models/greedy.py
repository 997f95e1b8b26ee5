"""Greedy answers: the most likely token at each step, independent of the model's generation settings.

`generation_config.json` may set a repetition penalty, forbidden n-grams, a minimum length and more, and `generate`
applies them to greedy decoding too. They are ignored here, except for the end-of-text tokens, so that an answer
depends on the weights only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from metake.errors import MetakeError
from metake.models.chat import Chat
from metake.models.editable import EditableModel
from metake.models.tokens import encode
from metake.models.trace import frozen
from metake.words import TruncatedStr

MARGIN = 3  # tokens generated beyond the target's length, which show whether the answer ends with the target
DEFAULT_MIN_NEW_TOKENS = 8  # minimum number of tokens of an answer


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's end-of-text token, those of the model's generation settings, and the end of a turn.

    Args:
        model: the model.
        tokenizer: its tokenizer, or a `Chat`.

    Returns:
        Token ids in ascending order.
    """
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    turn = tokenizer.end_of_turn if isinstance(tokenizer, Chat) else None
    tokens = [tokenizer.eos_token_id, turn, *(named if isinstance(named, list) else [named])]
    return sorted({int(token) for token in tokens if token is not None})


def set_aside(model: Any) -> dict[str, Any]:
    """Generation settings of the model that would change greedy answers, by name.

    Args:
        model: the model.

    Returns:
        The settings that are ignored here.
    """
    config = getattr(model, "generation_config", None)
    if config is None:
        return {}
    neutral = type(config)().to_dict()
    harmless = ("_from_model_config", "transformers_version", "use_cache", "max_length", "max_new_tokens")
    return {
        name: value
        for name, value in config.to_dict().items()
        if name not in harmless
        and "token_id" not in name
        and value is not None
        and neutral.get(name) != value
        and not (value is False or (name == "num_beams" and value == 1))
    }


def described_decoding(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Decoding of the answers, as plain data for a result file.

    Args:
        model: the model.
        tokenizer: its tokenizer.

    Returns:
        Kind of decoding, stop tokens and ignored settings.
    """
    return {
        "decoding": "greedy",
        "stop_tokens": stop_tokens(model, tokenizer),
        "set_aside": set_aside(model),
    }


@contextmanager
def plain_generation(model: Any, tokenizer: Any) -> Iterator[None]:
    """Context in which `model.generate` ignores the model's generation settings; they are restored afterwards.

    Args:
        model: the model.
        tokenizer: its tokenizer.

    Raises:
        MetakeError: the model cannot generate.
    """
    if not hasattr(model, "generate"):
        raise MetakeError("generation: the model has no generate(); evaluate with --no-generate")
    from transformers import GenerationConfig

    settings: Any = GenerationConfig  # untyped
    own, returns = model.generation_config, model.config.return_dict
    ends = stop_tokens(model, tokenizer)
    filler = ends[0] if ends else 0
    model.generation_config = settings(eos_token_id=ends or None, pad_token_id=filler)
    model.config.return_dict = True
    try:
        yield
    finally:
        model.generation_config, model.config.return_dict = own, returns


def answer_length(
    tokenizer: Any, prompt: str, target: str, min_new_tokens: int = DEFAULT_MIN_NEW_TOKENS
) -> int:
    """Number of tokens to generate for an answer that is compared with `target`.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the prompt.
        target: the expected answer.
        min_new_tokens: minimum number of tokens.

    Returns:
        A few tokens more than the target has.
    """
    return max(encode(tokenizer, prompt, target).answer + MARGIN, min_new_tokens)


def tokenizer_round_trip(tokenizer: Any, target: str) -> str:
    """A target encoded and decoded by the tokenizer, for comparison with answers.

    Args:
        tokenizer: the model's tokenizer, which may fold case or Unicode forms.
        target: the expected answer.

    Returns:
        The target as the model would write it.
    """
    return tokenizer.decode(tokenizer(target, add_special_tokens=False).input_ids).strip() or target.strip()


def first_lines(text: str, target: str = "") -> str:
    """The first lines of an answer, as many as the target has; leading whitespace is kept.

    A `TruncatedStr` answer remains one unless a line of it ends where the result does.

    Args:
        text: the answer.
        target: the expected answer.

    Returns:
        The first lines.
    """
    body = text.lstrip()
    lines = body.split("\n")[: target.strip().count("\n") + 1]
    first = text[: len(text) - len(body)] + "\n".join(lines)
    return text if first == text else first


@torch.no_grad()
def continue_greedily(
    model: EditableModel,
    prompts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    max_tokens: int | None = None,
    finished: Callable[[int, str], bool] | None = None,
) -> list[str]:
    """Greedy continuations of token rows, each up to its length or a token that ends an answer.

    Those without such a token are `TruncatedStr`.

    Batched, with a KV cache; prompts are padded on the left and masked. Rows share a batch only if the model's
    positions suffice for all of them.

    Args:
        model: the model with its tokenizer.
        prompts: token ids of each prompt.
        lengths: maximum number of new tokens of each prompt.
        max_tokens: padded tokens of a batch, including continuations; by default the device's `pass_tokens` times two.
        finished: index of a prompt and its continuation so far -> whether it may end there. The text may be longer, because
            the rows of a batch end together.

    Returns:
        The continuations, in the order of the prompts.
    """
    texts, tokenizer = [""] * len(prompts), model.tokenizer
    model.check_tokens(max((max(row, default=0) for row in prompts), default=0))
    budget, limit = max_tokens or 2 * model.pass_tokens, model.max_positions
    ends = set(stop_tokens(model.model, tokenizer))
    with frozen(model.model), plain_generation(model.model, tokenizer):
        for group in _groups(prompts, lengths, budget, limit):
            width, longest = max(len(prompts[i]) for i in group), max(lengths[i] for i in group)
            if limit is not None:
                longest = min(longest, limit - width)
            if longest < 1:
                continue
            gaps = [width - len(prompts[i]) for i in group]
            ids = torch.tensor([[0] * gap + list(prompts[i]) for i, gap in zip(group, gaps, strict=True)])
            mask = torch.tensor([[0] * gap + [1] * (width - gap) for gap in gaps])
            out = model.model.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=longest,
                do_sample=False,
                **(
                    {}
                    if finished is None
                    else {"stopping_criteria": [_criterion(tokenizer, group, width, finished)]}
                ),
            )
            for i, row in zip(group, out[:, width:].tolist(), strict=True):
                row = row[: lengths[i]]
                end = next((at for at, token in enumerate(row) if token in ends), None)
                text = tokenizer.decode(row[:end], skip_special_tokens=True)
                texts[i] = TruncatedStr(text) if end is None else text
    return texts


def _criterion(
    tokenizer: Any, group: Sequence[int], width: int, finished: Callable[[int, str], bool]
) -> Callable[..., torch.Tensor]:
    """`finished` for the rows of a batch, as `generate` calls it."""

    def rows_finished(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        texts = [tokenizer.decode(row, skip_special_tokens=True) for row in ids[:, width:].tolist()]
        done = [finished(i, text) for i, text in zip(group, texts, strict=True)]
        return torch.tensor(done, device=ids.device)

    return rows_finished


def _groups(
    prompts: Sequence[Sequence[int]], lengths: Sequence[int], budget: int, limit: int | None
) -> Iterator[list[int]]:
    """Indices of the rows of each batch, sorted by length."""
    group: list[int] = []
    width = longest = 0
    for i in sorted(range(len(prompts)), key=lambda i: (lengths[i], len(prompts[i]))):
        wide, long = max(width, len(prompts[i])), max(longest, lengths[i])
        full = 2 * wide * (len(group) + 1) > budget or (limit is not None and wide + long > limit)
        if group and full:
            yield group
            group, wide, long = [], len(prompts[i]), lengths[i]
        group.append(i)
        width, longest = wide, long
    if group:
        yield group


def greedy_answers(
    model: EditableModel,
    prompts: Sequence[str],
    targets: Sequence[str],
    *,
    min_new_tokens: int = DEFAULT_MIN_NEW_TOKENS,
    max_tokens: int | None = None,
) -> list[str]:
    """Greedy answers to prompts, each a few tokens longer than its target and with as many lines.

    Args:
        model: the model with its tokenizer, or with a `Chat`.
        prompts: the prompts.
        targets: the expected answer of each prompt.
        min_new_tokens: minimum number of tokens of an answer.
        max_tokens: padded tokens of a batch.

    Returns:
        The answers, in the order of the prompts.
    """
    tokenizer = model.tokenizer
    rows = [encode(tokenizer, prompt).ids for prompt in prompts]
    lengths = [answer_length(tokenizer, p, t, min_new_tokens) for p, t in zip(prompts, targets, strict=True)]
    texts = continue_greedily(model, rows, lengths, max_tokens)
    return [first_lines(text, target) for text, target in zip(texts, targets, strict=True)]
