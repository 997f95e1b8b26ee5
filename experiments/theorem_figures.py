"""Figures that check the theory: theory as a line, the library's own code as points.

    python experiments/theorem_figures.py --out results/figures --claims T1,L2

Writes one PDF, PNG and CSV per figure, `captions.md` and `index.json`. Every row of a CSV says what it
has to obey (equal to, below or above the theory); a row that does not makes the run fail.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

# The theory and the verification are no installed packages: they are found beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no dates in PDFs: the same run writes the same bytes

import transformers
from tqdm import tqdm

from experiments.figures import fidelity, suppression, trap  # noqa: F401  (they register themselves)
from experiments.figures.core import FIGURES, write_index
from metake.errors import MetakeError
from theory.claims import CLAIMS


def chosen(claims: str | None) -> list[str]:
    """Names of the figures that show any of the claims; all without a choice.

    Raises:
        MetakeError: a claim that does not exist or that no figure shows.
    """
    order = [c.id for c in CLAIMS]
    names = sorted(FIGURES, key=lambda name: order.index(FIGURES[name].claims[0]))
    if claims is None:
        return names
    wanted = [c.strip() for c in claims.split(",") if c.strip()]
    shown = {c for f in FIGURES.values() for c in f.claims}
    for claim in wanted:
        if claim not in order:
            raise MetakeError(f"--claims: no claim {claim!r}; there are {', '.join(order)}")
        if claim not in shown:
            raise MetakeError(
                f"--claims: no figure shows {claim}; figures show {', '.join(c for c in order if c in shown)}"
            )
    if not wanted:
        raise MetakeError("--claims: empty; leave it out for all figures")
    return [name for name in names if set(FIGURES[name].claims) & set(wanted)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/figures"))
    parser.add_argument("--claims", help="only figures of these claims, comma-separated")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    try:
        names = chosen(args.claims)
        entries = []
        with tqdm(names, desc="figures", unit="figure") as progress:
            for name in progress:
                progress.set_postfix_str(name)
                entries.append(FIGURES[name].write(args.out))
        write_index(args.out, entries)
    except MetakeError as error:
        print(f"theorem_figures: {error}", file=sys.stderr)
        return 2
    for entry in entries:
        deviations = ", ".join(f"{k} {v:.2g}" for k, v in entry["deviation"].items())
        print(f"{entry['name']}: {deviations}")
    print(f"{len(entries)} figures in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
