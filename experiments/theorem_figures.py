"""Figures that check the theory: theory as a line, the library's own code as points.

    python experiments/theorem_figures.py --out results/figures --claims T1,L2

Writes one PDF, PNG and CSV per figure, `captions.md` and `index.json`. Every row of a CSV says what it
has to obey (equal to, below or above the theory); a row that does not ends the run with exit code 1.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# The theory and the verification are no installed packages: they are found beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# Before torch is imported: sums in another order would be other bytes.
os.environ.setdefault("OMP_NUM_THREADS", "1")


from metake.console import command
from metake.errors import MetakeError
from metake.extras import needs
from metake.options import Parser, output_folder, show_help
from metake.phases import phase
from theory.claims import CLAIMS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/figures",
        help="folder of the results; default: %(default)s",
    )
    parser.add_argument("--claims", help="only figures of these claims, comma-separated")
    return parser


if __name__ == "__main__":
    show_help(options)

from tqdm import tqdm

with command("theorem_figures"), needs("theory"):
    from experiments.figures import fidelity, layers, projection, rounding, suppression, trap  # noqa: F401  (they register)
    from experiments.figures.core import FIGURES, BrokenLaw, write_index

ORDER = [claim.id for claim in CLAIMS]


def every() -> list[str]:
    """Names of all figures, in the order of their claims."""
    return sorted(FIGURES, key=lambda name: ORDER.index(FIGURES[name].claims[0]))


def chosen(claims: str | None) -> list[str]:
    """Names of the figures that show any of the claims; all without a choice.

    Raises:
        MetakeError: a claim that does not exist or that no figure shows.
    """
    if claims is None:
        return every()
    wanted = [c.strip() for c in claims.split(",") if c.strip()]
    if not wanted:
        raise MetakeError("--claims: empty; leave it out for all figures")
    shown = {c for f in FIGURES.values() for c in f.claims}
    for claim in wanted:
        if claim not in shown:
            why = f"no figure shows {claim}" if claim in ORDER else f"no claim {claim!r}"
            raise MetakeError(f"--claims: {why}; there are {', '.join(c for c in ORDER if c in shown)}")
    return [name for name in every() if set(FIGURES[name].claims) & set(wanted)]


@command("theorem_figures")
def main(arguments: Sequence[str] | None = None) -> int:
    args = options().parse_args(arguments)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    try:
        names = chosen(args.claims)
        entries = []
        with tqdm(names, desc="figures", unit="figure", disable=None) as progress:
            for name in progress:
                progress.set_postfix_str(name)
                with phase(name):
                    entries.append(FIGURES[name].write(args.out))
        write_index(args.out, entries, every())
    except BrokenLaw as error:
        print(f"theorem_figures: a law is broken: {error}", file=sys.stderr)
        return 1
    for entry in entries:
        print(f"{entry['name']}: {entry['summary']}")
    print(f"{len(entries)} figures in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
