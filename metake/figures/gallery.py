"""All figures of the theory, in the order of their claims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metake.errors import MetakeError
from metake.figures import (  # noqa: F401 (each registers its figures)
    batches,
    cost,
    fidelity,
    layers,
    projection,
    rounding,
    suppression,
    trap,
)
from metake.figures.core import FIGURES, write_index
from metake.figures.measured import available
from metake.phases import phase
from theory.claims import CLAIMS

ORDER = [claim.id for claim in CLAIMS]


def names() -> list[str]:
    """Names of all figures, in the order of their claims."""
    return sorted(FIGURES, key=lambda name: ORDER.index(FIGURES[name].claims[0]))


def choose(claims: str | None) -> list[str]:
    """Names of the figures that show any of some claims.

    Args:
        claims: IDs, comma-separated; None for all figures.

    Returns:
        Names in the order of their claims.

    Raises:
        MetakeError: a claim does not exist or no figure shows it.
    """
    if claims is None:
        return names()
    wanted = [c.strip() for c in claims.split(",") if c.strip()]
    if not wanted:
        raise MetakeError("--claims: empty; leave it out for all figures")
    shown = {c for f in FIGURES.values() for c in f.claims}
    for claim in wanted:
        if claim not in shown:
            why = f"no figure shows {claim}" if claim in ORDER else f"no claim {claim!r}"
            raise MetakeError(f"--claims: {why}; there are {', '.join(c for c in ORDER if c in shown)}")
    return [name for name in names() if set(FIGURES[name].claims) & set(wanted)]


def missing_models(chosen: Sequence[str]) -> dict[str, list[str]]:
    """Demo models that figures are drawn without.

    Args:
        chosen: names of figures.

    Returns:
        Name of a figure -> its demo models that this installation does not contain; figures without one are left out.
    """
    present = available()
    absent = {name: [model for model in FIGURES[name].models if model not in present] for name in chosen}
    return {name: models for name, models in absent.items() if models}


def write(chosen: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Write figures and the index of the folder.

    Args:
        chosen: names of figures.
        out: folder of the files.

    Returns:
        The entries of the index.

    Raises:
        RelationViolated: a measurement does not satisfy its relation to the theory.
    """
    entries = []
    with tqdm(chosen, desc="figures", unit="figure", disable=None) as progress:
        for name in progress:
            progress.set_postfix_str(name)
            with phase(name):
                entries.append(FIGURES[name].write(out))
    write_index(out, entries, names())
    return entries
