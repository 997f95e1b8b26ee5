"""What the library does, in a few minutes on two cores: `make demo`.

    python experiments/demo.py --out results/demo

(a) Six well-known facts in a real pretrained model, by an open and a closed loop under the same constraint.
(b) A dozen facts in the same model, each method with its preset, as questions and answers.
(c) Sixty facts of the synthetic world, edited in batches in a demo model.
All end in `report.html`, all numbers in `results.json`. Without the real model, (a) runs on the demo model.

The command `metake demo` is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.commands.demo import demo
from metake.commands.program import Script

main = Script("demo", demo)

if __name__ == "__main__":
    sys.exit(main())
