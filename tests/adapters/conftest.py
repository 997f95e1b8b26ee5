"""Deltas of tiny models, and folders that peft itself writes."""

import pytest
import torch

from metake.deltas import Delta
from tests.cases import tiny

IDS = torch.tensor([[3, 5, 8, 13]])


@pytest.fixture
def delta(tiny_model):
    """Two layers of different rank."""
    torch.manual_seed(0)
    d_v, d_k = tiny_model.d_v, tiny_model.d_k
    factors = {n: (torch.randn(d_v, r), torch.randn(d_k, r)) for n, r in ((1, 2), (3, 5))}
    note = {"model": tiny_model.name, "edits": [{"prompt": "{} is", "subject": "x", "target_new": "y"}]}
    return Delta(factors, tiny_model.fingerprint(), note)


@pytest.fixture
def logits():
    """`logits(model)`: of a few tokens."""

    @torch.no_grad()
    def of(model):
        return model(input_ids=IDS).logits.clone()

    return of


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="peft is not installed (pip install 'metake[dev]')")


@pytest.fixture
def by_peft(peft, family, tmp_path):
    """`by_peft(**config)`: a folder that peft wrote, with random B, and the logits of its model."""

    def make(targets=None, **config):
        base = tiny(family)
        ends = ("c_proj", "fc_out", "dense_4h_to_h", "down_proj")
        down = [n for n, _ in base.named_modules() if n.endswith(ends) and "mlp" in n]
        config = {"r": 4, "lora_alpha": 8, "target_modules": [down[1], down[3]], **config}
        if targets is not None:
            config["target_modules"] = targets
        model = peft.get_peft_model(base, peft.LoraConfig(fan_in_fan_out=family == "gpt2", **config)).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_()
            wanted = model(input_ids=IDS).logits.clone()
        model.save_pretrained(tmp_path / "by-peft")
        return tmp_path / "by-peft", wanted

    return make
