"""Does Theorem 3 say anything about this model? Its premises and conclusions, edit by edit. Also `metake drift`.

    python experiments/measure_drift.py                       # the demo model
    python experiments/measure_drift.py --model smollm2       # a real pretrained model, real facts
    python experiments/measure_drift.py --model gpt2-xl       # hub name or local folder; GPU if there is one

Every edit is planned open loop and measured alone, on the unedited model: at the plan, at the plan
compensated for attenuation, over the strength of the constraint, and along MetaKE's descent. Writes
drift.json, drift.csv, figures and report.html, and prints the verdict. A run that was stopped goes
on where it was when the same command is given again.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.commands.drift import drift
from metake.commands.program import Script

main = Script("measure_drift", drift)

if __name__ == "__main__":
    sys.exit(main())
