"""Figures that check the theory: theory as a line, the library's own code as points. Also `metake figures`.

    python experiments/theorem_figures.py --out results/figures --claims T1,L2

Writes one PDF, PNG and CSV per figure, `captions.md` and `index.json`. Every row of a CSV says what it
has to obey (equal to, below or above the theory); a row that does not ends the run with exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.commands.figures import figures
from metake.commands.program import Script

main = Script("theorem_figures", figures)

if __name__ == "__main__":
    sys.exit(main())
