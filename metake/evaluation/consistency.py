"""CounterFact's consistency: similarity of generated text to texts about subjects with the new attribute.

The texts sampled from a record's generation prompts are compared with reference texts about subjects that truly
have the new attribute (ROME's `attribute_snippets.json`), by the cosine of tf-idf vectors. Of a word w,

    weight(w) = count(w) (1 + ln((1 + n) / (1 + n_w))),    n texts were read, n_w of them hold w,

which is scikit-learn's `TfidfVectorizer` with its defaults, as in the published code (whose idf is a file of its
own; without that file it is fitted in the same way).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from metake.data.fields import Fields, listed
from metake.data.record import Record
from metake.errors import MetakeError
from metake.files import read_json
from metake.geometry.statistics import text_fingerprint

FORMAT = "the file must be a list of {relation_id, target_id, samples: [{text}, ...]}"


def words(text: str) -> Counter[str]:
    """Number of occurrences of each word of two letters or more, in lower case.

    Args:
        text: the text.

    Returns:
        word -> count.
    """
    return Counter(re.findall(r"\w\w+", text.lower()))


class References:
    """Reference texts by attribute, and the weights of their words.

    Args:
        texts: (relation id, target id) -> texts about subjects of which the relation to the target is true. The
            weights are fitted on all of them; words that none of them holds do not count.

    Attributes:
        weights: word -> its inverse document frequency.
    """

    def __init__(self, texts: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.texts = texts
        everything = [text for about in texts.values() for text in about]
        holding = Counter(word for text in everything for word in set(words(text)))
        self.weights = {w: 1 + math.log((1 + len(everything)) / (1 + n)) for w, n in holding.items()}

    @classmethod
    def read(cls, path: Path | str) -> References:
        """The reference texts of a file like `attribute_snippets.json`; several entries of one attribute are joined.

        Args:
            path: the JSON file.

        Returns:
            the texts with their weights.

        Raises:
            MetakeError: not JSON, empty, or an entry without a field that is needed.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, list) or not content:
            raise MetakeError(f"{path}: holds no reference texts; {FORMAT}")
        texts: dict[tuple[str, str], list[str]] = {}
        problems: list[str] = []
        for index, entry in enumerate(content):
            fields = Fields.of(index, entry, problems)
            if fields.content:
                attribute = fields.text("relation_id"), fields.text("target_id")
                texts.setdefault(attribute, []).extend(_samples(fields))
        if problems:
            raise MetakeError(f"{path}: {listed(problems)}; {FORMAT}")
        return cls(texts)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the reference texts."""
        attributes = [[*attribute, *about] for attribute, about in sorted(self.texts.items())]
        return text_fingerprint(json.dumps(attributes))

    def vector(self, text: str) -> dict[str, float]:
        """Tf-idf vector of length 1 of a text, by word; empty if no word has a weight.

        Args:
            text: the text.

        Returns:
            word -> weight.
        """
        vector = {word: n * self.weights[word] for word, n in words(text).items() if word in self.weights}
        length = math.hypot(*vector.values())
        return {word: weight / length for word, weight in vector.items()}

    def about(self, record: Record) -> str:
        """All reference texts about the record's new attribute, joined; empty if there are none.

        Args:
            record: the record.

        Returns:
            one text.
        """
        return "" if record.attribute is None else " ".join(self.texts.get(record.attribute, ()))

    def consistency(self, record: Record, texts: Sequence[str]) -> float:
        """Cosine, 0 to 1, between texts about a record's subject and those about its new attribute.

        Args:
            record: the record.
            texts: texts about its subject; they are joined.

        Returns:
            NaN without reference texts about the attribute; 0 if no word of the texts has a weight.

        Reference:
            ROME (Meng et al., 2022), reference score of CounterFact.
        """
        reference = self.vector(self.about(record))
        if not reference:
            return float("nan")
        return sum(weight * reference.get(word, 0.0) for word, weight in self.vector(" ".join(texts)).items())


def _samples(fields: Fields) -> list[str]:
    """The texts of an entry."""
    samples: Any = fields.content.get("samples")
    if not isinstance(samples, list) or not all(
        isinstance(sample, dict) and isinstance(sample.get("text"), str) for sample in samples
    ):
        fields.problem(": samples must be a list of objects with a text")
        return []
    return [sample["text"] for sample in samples]


def find_references(path: Path, records: Sequence[Record], data: Path) -> References:
    """Reference texts of a file; at least one record has some.

    Args:
        path: ROME's `attribute_snippets.json`.
        records: the records.
        data: their file, for the error line.

    Returns:
        The texts.

    Raises:
        MetakeError: the file cannot be read, or none of its texts is about a record's attribute.
    """
    references = References.read(path)
    if not any(record.attribute for record in records):
        raise MetakeError(
            f"{data}: no record has relation_id and target_new's id, which --references needs; "
            "give multi_counterfact.json"
        )
    if not any(references.about(record) for record in records):
        raise MetakeError(
            f"{path}: no text is about an attribute of {data}; give the file that belongs to these records"
        )
    return references
