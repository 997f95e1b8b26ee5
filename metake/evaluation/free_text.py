"""Metrics of a long generated answer: words and characters in common with the target, without embeddings."""

from __future__ import annotations

import re

from metake.extras import needs

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Words of a text, in lower case and without punctuation."""
    return WORD.findall(text.lower())


def free_text_scores(text: str, target: str) -> dict[str, float]:
    """BLEU, ROUGE-L and similarity of an answer to its target, each from 0 to 1.

    Args:
        text: the answer.
        target: the target.

    Returns:
        `bleu`: of words and up to four in a row, as sacrebleu computes it for one sentence. `rouge_l`: F1 of the longest
        common subsequence of words. `similarity`: 1 - the share of characters to insert or delete.

    Raises:
        MetakeError: a package of the extra `text` is missing.

    Example:
        >>> from metake.evaluation.free_text import free_text_scores
        >>> {name: round(score, 2) for name, score in free_text_scores("a b c d e", "a b c x e").items()}
        {'bleu': 0.43, 'rouge_l': 0.8, 'similarity': 0.89}
    """
    with needs("text"):
        from rapidfuzz.distance import Indel, LCSseq
        from sacrebleu import sentence_bleu
    said, wanted = words(text), words(target)
    common = LCSseq.similarity(said, wanted)
    return {
        "bleu": sentence_bleu(text, [target]).score / 100,
        "rouge_l": 2 * common / max(1, len(said) + len(wanted)),
        "similarity": float(Indel.normalized_similarity(text, target)),
    }
