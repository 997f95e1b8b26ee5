"""Rules of WILD: complete answers to the bare question, compared after normalization.

Reference: Yang et al., The Mirage of Model Editing (ACL 2025, arXiv:2502.11177); github.com/WanliYoung/Revisit-Editing-Evaluation.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metake.data.record import Record
from metake.errors import MetakeError
from metake.evaluation.rules import Answers, PublishedRules, Rules, tidy
from metake.models.chat import PLAIN, frame_of
from metake.models.editable import EditableModel
from metake.models.greedy import MARGIN, answer_length, continue_greedily, first_lines, stop_tokens
from metake.models.tokens import encode
from metake.names import unknown_name
from metake.words import begins_with

Judge = Callable[[str, str, str], bool]  # question, target, answer -> whether the answer is right

PROTOCOLS = ("published", "wild")
MIN_CAP = 50  # tokens, as in the public code of WILD
NORMALIZATION = "lower case; without ASCII punctuation and the articles a, an, the; single spaces"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """A text as QAEdit compares it: in lower case, without ASCII punctuation and articles, with single spaces.

    Args:
        text: an answer or a target.

    Returns:
        The normalized text. One that consists of punctuation and articles alone is only put into lower case.
    """
    lower = text.lower()
    return " ".join(_ARTICLES.sub(" ", lower.translate(_PUNCTUATION)).split()) or " ".join(lower.split())


def cut(text: str, target: str) -> str:
    """An answer up to the first line break or full stop after as many as the target contains.

    WILD ends an answer at the first of either. A target such as `St. Louis` could then never be answered.

    Args:
        text: what the model generated.
        target: the expected answer.

    Returns:
        The beginning of the text, without the full stop and surrounding space.
    """
    inside = target.strip().rstrip(".").count(".")
    return ".".join(first_lines(text, target).split(".")[: inside + 1]).strip()


def token_cap(tokenizer: Any, targets: Sequence[str]) -> int:
    """Largest number of tokens of an answer: no target is longer.

    Args:
        tokenizer: the model's tokenizer.
        targets: the expected answers.

    Returns:
        50, or a few more tokens than the longest target has.
    """
    longest = max((encode(tokenizer, "?", target).answer for target in targets), default=0)
    return max(MIN_CAP, longest + MARGIN)


def _published(answers: Answers) -> Answers:
    """Answers of the published protocol; empty where the record has no prompt."""
    edited, rephrased, unrelated = (getattr(answer, "published", "") for answer in answers)
    return edited, rephrased, unrelated


def _targets(records: Sequence[Record]) -> list[str]:
    return [target for r in records for target in (r.request.target_new, r.locality_answer) if target]


class WildAnswer(str):
    """A complete answer, cut as WILD does.

    Attributes:
        published: the answer of the published protocol to the same prompt, from the same generation.
    """

    published: str = ""


def _wild_answer(text: str, beginning: str, target: str) -> WildAnswer:
    """WILD's answer of a continuation, with that of the published protocol from its first tokens."""
    answer = WildAnswer(cut(text, target))
    answer.published = tidy(first_lines(beginning, target))
    return answer


class WildRules(Rules):
    """Rules of WILD. The answers are scored as in the published protocol as well.

    Args:
        judge: decides whether an answer is right, beside the comparisons; None without one.
    """

    name, start = "wild", "wild_start"

    def __init__(self, judge: Judge | None = None) -> None:
        self.judge = judge

    def key(self) -> list[Any]:
        return ["wild-2", self._judge_name]  # 2: with the metrics of the published protocol

    @property
    def _judge_name(self) -> str | None:
        if self.judge is None:
            return None
        kind = self.judge if hasattr(self.judge, "__qualname__") else type(self.judge)
        return f"{kind.__module__}.{kind.__qualname__}"

    def read(
        self, model: EditableModel, prompts: Sequence[str], targets: Sequence[str], max_tokens: int
    ) -> list[str]:
        tokenizer = model.tokenizer
        rows = [encode(tokenizer, prompt).ids for prompt in prompts]
        lengths = [answer_length(tokenizer, p, t) for p, t in zip(prompts, targets, strict=True)]
        cap = max(token_cap(tokenizer, targets), *lengths, 0)
        steps, beginnings = [0] * len(rows), dict[int, str]()

        def finished(i: int, text: str) -> bool:
            steps[i] += 1
            if steps[i] == lengths[i]:
                beginnings[i] = text
            return steps[i] >= lengths[i] and cut(text, targets[i]) != text.strip()

        texts = continue_greedily(model, rows, [cap] * len(rows), max_tokens, finished)
        return [
            _wild_answer(text, min(text, beginnings.get(i, text), key=len), target)
            for i, (text, target) in enumerate(zip(texts, targets, strict=True))
        ]

    def is_right(self, answer: str, target: str) -> bool:
        return begins_with(normalize(answer), normalize(target))

    def is_equal(self, answer: str, target: str) -> bool:
        return normalize(answer) == normalize(target)

    def score(
        self, model: EditableModel, record: Record, answers: Answers, before: Answers
    ) -> Mapping[str, float]:
        target, found = record.request.target_new, dict[str, bool]()
        published = PublishedRules().score(model, record, _published(answers), before)
        prompts = {"": record.request.text, "_rephrase": record.rephrase}
        for (suffix, prompt), answer in zip(prompts.items(), answers[:2], strict=True):
            if prompt:
                found[f"wild_exact{suffix}"] = normalize(answer) == normalize(target)
                found[f"wild_start{suffix}"] = self.is_right(answer, target)
                if self.judge is not None:
                    found[f"wild_judge{suffix}"] = self._judged(prompt, target, answer)
        if record.locality:
            found["wild_locality"] = answers[2] == before[2]
        return {**published, **{name: float(value) for name, value in found.items()}}

    def _judged(self, prompt: str, target: str, answer: str) -> bool:
        assert self.judge is not None
        verdict = self.judge(prompt, target, answer)
        if not isinstance(verdict, bool):
            raise MetakeError(f"judge: must return True or False, got {verdict!r} for the answer {answer!r}")
        return verdict

    def described(self, model: EditableModel, records: Sequence[Record]) -> dict[str, Any]:
        plain = frame_of(model.tokenizer) == PLAIN
        return {
            "prompt": "as in the file, nothing added" if plain else "in the chat template, as a user turn",
            "stop": [
                *model.tokenizer.convert_ids_to_tokens(stop_tokens(model.model, model.tokenizer)),
                "\n",
                ".",
            ],
            "max_new_tokens": token_cap(model.tokenizer, _targets(records)),
            "comparison": f"equal, or begins with the target, after normalization: {NORMALIZATION}",
            "judge": self._judge_name,
        }


def rules_of(name: str, judge: Judge | None = None) -> Rules:
    """Rules of a protocol.

    Args:
        name: `published` or `wild`.
        judge: of the wild protocol.

    Returns:
        The rules.

    Raises:
        unknown_name: a `MetakeError`, for another name.
        MetakeError: a judge that is no function, or with the published protocol.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    if judge is not None and not callable(judge):
        raise MetakeError(
            "judge: must be a function of question, target and answer that returns True or False"
        )
    if judge is not None and name != WildRules.name:
        raise MetakeError("judge: the published protocol has none; give name='wild'")
    return WildRules(judge) if name == WildRules.name else PublishedRules()
