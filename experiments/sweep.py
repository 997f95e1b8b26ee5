"""Efficacy and generalization against specificity over a range of lambda (L2 for AlphaEdit, the cost weight of a priced loop).

    python experiments/sweep.py --model demo --out results/sweep
    python experiments/sweep.py --model demo-llama --methods metake,memit-iterated --factors 0.3,1,3 --edits 1920 --batch 100

Every method keeps its searched settings; only the strength of the constraint changes, by factors
around the searched value. Test facts, consecutive batches, judged at the end. Every batch is kept:
the same command goes on where a killed one stopped. Writes a JSON file, a Markdown table and the figure.

The command `metake sweep` is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.commands.program import Script
from metake.commands.sweep import sweep

main = Script("sweep", sweep)

if __name__ == "__main__":
    sys.exit(main())
