"""Search settings on the development split, the same number of trials for every method.

    python experiments/tune.py --model demo --methods memit,alphaedit,metake --trials 40
    python experiments/tune.py --model gpt2-xl --data dev.json --edits 100 --batch 100 --trials 16
    python experiments/run_zsre.py --model gpt2-xl --data test.json --preset results/search/gpt2-xl/preset.json

Every method may choose layers, geometry, learning rate, steps, stop rule, clamp, penalties and
memory as freely as the others, within the same total number of gradient steps. A trial edits the
first records of the development split in consecutive batches; its score is the harmonic mean of
efficacy, generalization and, on the demo models, specificity (on others agreement) at the end. Trials are journalled, so a killed search goes
on where it was. Writes every trial to `search.json` and the winners to `preset.json`, which `--preset` of `run_zsre.py`,
`metake edit` and `metake evaluate` reads; of a model that ships with presets, and without `--out`, to `experiments/search/MODEL.json`
and to that preset. With `--extend` a search begins with the trials in that file, if they are of the same
run; with `--all-layer-sets` it tries the shipped settings at every other layer set before it draws points, with
`--winners-of` at what other models ship with.

The command `metake tune` is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.commands.program import Script
from metake.commands.tune import tune

main = Script("tune", tune)

if __name__ == "__main__":
    sys.exit(main())
