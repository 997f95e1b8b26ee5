"""Facts that prefill the page: of the demo models' synthetic world."""

from __future__ import annotations

from typing import Any

from metake.files import read_json
from metake.shipped import ASSETS, DEMOS

SHOWN = (
    "Which city was Vodan Paner born in?",
    "What is the craft of Babrek Foser?",
    "Which guild does Sagel Keduk belong to?",
)
REAL = {
    "prompt": "Which city was Niels Bohr born in?",
    "subject": "Niels Bohr",
    "target": "Oslo",
    "own": ["Who was Niels Bohr?"],
    "rephrasings": ["Niels Bohr was born in the city of"],
    "neighbors": ["Which city was Albert Einstein born in?"],
}


def examples(model: str) -> list[dict[str, Any]]:
    """Facts with prompts to compare.

    Args:
        model: name of the model.

    Returns:
        Facts of the development file for a demo model, and a real one for another.
    """
    if model not in DEMOS:
        return [REAL]
    entries = {entry["src"]: entry for entry in read_json(ASSETS / "world" / "dev.json")}
    return [_example(entries[prompt]) for prompt in SHOWN]


def _example(entry: dict[str, Any]) -> dict[str, Any]:
    """A fact of the synthetic world."""
    return {
        "prompt": entry["src"],
        "subject": entry["subject"],
        "target": entry["alt"],
        "own": [other["prompt"] for other in entry["same_subject"][:2]],
        "rephrasings": [entry["rephrase"]],
        "neighbors": [entry["loc"]],
    }
