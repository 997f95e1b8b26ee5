"""Efficacy and generalization against specificity and agreement over the strength of the constraint.

    python experiments/sweep.py --model demo --out results/sweep
    python experiments/sweep.py --model demo-llama --methods metake,memit-iterated --factors 0.3,1,3 --edits 1920 --batch 100
    python experiments/sweep.py --model demo-llama --preset none --methods metake,memit --attenuations 0.2,0.5,0.9

Every method keeps its other settings; only the strength changes, by factors of the preset's lambda (L2 for AlphaEdit, the cost
weight of a priced loop), or as an attenuation. Consecutive batches, judged at the end. Every batch is kept: the same command
goes on where a killed one stopped. Writes a JSON file, a Markdown table and the figure.

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
