"""Texts that ship: for the statistics of keys, and held out for perplexity."""

from __future__ import annotations

from metake.data.world import World
from metake.errors import MetakeError
from metake.files import read_text
from metake.shipped import ASSETS, DEMOS

TEXT = ASSETS / "text.txt"  # both written by experiments/sample_text.py
HELD_OUT = ASSETS / "held_out.txt"


def default_text(name: str) -> str:
    """Text for the statistics of keys: that of the synthetic world for the demo models, English for all others.

    Args:
        name: name of the model's preset; see `preset_name`.

    Returns:
        The text.

    Raises:
        MetakeError: no text ships with the installation.
    """
    if name in DEMOS:
        return World().text(6000, seed=7)
    if not TEXT.is_file():
        raise MetakeError("statistics: no text ships with this installation; give one with --text FILE")
    return read_text(TEXT)


def held_out_text(name: str) -> str:
    """Text for perplexity, disjoint from `default_text`.

    Args:
        name: name of the model's preset; see `preset_name`.

    Returns:
        The text.

    Raises:
        MetakeError: no text ships with the installation.
    """
    if name in DEMOS:
        return World().text(400, seed=11)
    if not HELD_OUT.is_file():
        raise MetakeError("perplexity: no text ships with this installation; give one with --held-out FILE")
    return read_text(HELD_OUT)
