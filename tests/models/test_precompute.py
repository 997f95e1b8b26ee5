"""What is run once must be what whole passes see, in any groups."""

import pytest
import torch

from metake.models.editable import EditableModel
from metake.models.precompute import key_values_above, stream_after
from metake.models.prefix_batch import PrefixBatch
from metake.models.trace import run
from tests.cases import tiny

IDS = torch.tensor([[5, 9, 17, 30, 2, 7], [5, 9, 17, 4, 90, 0], [8, 1, 4, 4, 11, 0], [8, 1, 6, 2, 2, 2]])
NEEDED, BEGINS, AHEAD = [6, 5, 5, 6], [3, 3, 2, 0], [2, 0, 1, 4]  # the second row has only its beginning
BLOCK = 1


@torch.no_grad()
@pytest.mark.parametrize("budget", [4, 1000])
@pytest.mark.parametrize("begins", [BEGINS, [0, 0, 0, 0]])
def test_precompute_equals_stream_and_memory_of_whole_rows(family, budget, begins):
    model = EditableModel(tiny(family))
    split = PrefixBatch.of(IDS, NEEDED, begins, [0, 0, 1, 2])
    begin, needed, ahead = torch.tensor(begins), torch.tensor(NEEDED), torch.tensor(AHEAD)
    whole = run(model, IDS, outputs=(BLOCK,), record_from=BLOCK + 1)
    states = split.prefix_key_values(model)

    stream = stream_after(model, split, states, BLOCK, needed - begin, budget)
    for row in range(4):
        wanted = whole.outputs[BLOCK][row, begins[row] : NEEDED[row]]
        torch.testing.assert_close(stream[row, : len(wanted)], wanted, rtol=1e-4, atol=1e-4)

    memory = key_values_above(model, split, states, BLOCK, stream, ahead, budget)
    assert list(memory) == list(range(BLOCK + 1, len(model)))
    common = max(begins)
    for layer, pair in memory.items():
        for held, seen in zip(pair, whole.key_values[layer], strict=True):
            assert held.shape[2] == common + max(AHEAD)
            for row in range(4):
                first, last = begins[row], begins[row] + AHEAD[row]
                torch.testing.assert_close(held[row, :, :first], seen[row, :, :first], rtol=1e-4, atol=1e-4)
                own = held[row, :, common : common + AHEAD[row]]
                torch.testing.assert_close(own, seen[row, :, first:last], rtol=1e-4, atol=1e-4)
