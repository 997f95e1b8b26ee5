"""Masks and positions of the tokens that follow cached ones."""

import torch

from metake.models.kv_cache import KVCache


def test_kv_cache_clamps_padding_positions_below_the_limit():
    """Two rows with 2 and 4 cached tokens; the model has 6 positions."""
    values = torch.zeros(2, 1, 4, 3)
    cache = KVCache({0: (values, values)}, torch.tensor([2, 4]))
    assert cache.mask_and_positions(3, 6, torch.device("cpu"))[1].tolist() == [[2, 3, 4], [4, 5, 5]]
    assert cache.mask_and_positions(4, None, torch.device("cpu"))[1].tolist() == [[2, 3, 4, 5], [4, 5, 6, 7]]
