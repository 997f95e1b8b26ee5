"""What a preview and a result say, from values written down here."""

import torch

from metake.requests import Request
from metake.result import Preview

REQUESTS = tuple(Request("{} is", name, "x") for name in ("Ann", "Bo", "Cy"))


def test_a_subject_is_adrift_if_its_key_is_at_any_layer():
    """Cosines below 0.1 at the first layer, at the last, nowhere."""
    steady = torch.tensor([[0.05, 0.9, 0.5], [0.8, -0.3, 0.1001]])
    ones = torch.ones(2, 3)
    preview = Preview(REQUESTS, (1, 2), ones, ones / 2, steady)
    assert preview.adrift == ("Ann", "Bo")


def test_a_preview_says_what_the_last_layer_keeps_and_the_worst_cosine():
    eta = torch.tensor([[0.9, 0.8, 0.7], [0.25, 0.5, 0.125]])
    steady = torch.tensor([[0.4, 0.9, 1.0], [0.8, 0.3, 1.0]])
    lines = str(Preview(REQUESTS, (1, 2), eta / (1 - eta), eta, steady)).splitlines()
    ann, bo = (next(line for line in lines if name in line) for name in ("Ann", "Bo"))
    assert all(part in ann for part in ("0.900 (9)", "0.250 (0.333)", "25%", "0.40"))
    assert all(part in bo for part in ("0.800 (4)", "0.500 (1)", "50%", "0.30"))
