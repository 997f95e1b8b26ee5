"""Vision-language models: the language tower is edited, the vision tower is left alone."""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.modules import TOWERS
from metake.models.save import save_model
from metake.models.trace import run
from metake.requests import EditRequest
from metake.texts import default_text
from tests.cases import GROUPED, method_of

LAYERS = (1, 2)
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE = {"image_size": 28, "patch_size": 14}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}


def qwen2_vl():
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2}
    ids = {
        "image_token_id": 1000,
        "video_token_id": 1001,
        "vision_start_token_id": 1002,
        "vision_end_token_id": 1003,
    }
    config = Qwen2VLConfig(text_config={**GROUPED, "rope_parameters": ROPE}, vision_config=vision, **ids)
    return Qwen2VLForConditionalGeneration(config)


def llava():
    text, vision = LlamaConfig(**GROUPED), CLIPVisionConfig(**VISION, **IMAGE)
    return LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_index=1000)
    )


def gemma3():
    text = {**GROUPED, "head_dim": 8}
    config = Gemma3Config(
        text_config=text, vision_config={**VISION, **IMAGE}, image_token_index=1000, mm_tokens_per_image=4
    )
    return Gemma3ForConditionalGeneration(config)


NETWORKS = {"qwen2_vl": qwen2_vl, "llava": llava, "gemma3": gemma3}


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    torch.manual_seed(0)
    model = NETWORKS[request.param]().eval()
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


@torch.no_grad()
def test_edit_shifts_the_stream_of_the_language_tower(network, demo):
    """The stream moves as solved, weights of the language tower alone change, and they return bit for bit."""
    model = EditableModel(network, demo.tokenizer)
    assert model.family in TOWERS
    assert model.max_positions == 128
    assert not model.can_resume(1)
    options = {"tokens": 300, "progress": False}
    statistics = collect(model, demo.tokenizer, default_text("demo")[:8000], LAYERS, **options)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    ids = torch.tensor([demo.tokenizer("Nezan Girok").input_ids])
    still = run(model, ids, outputs=(2,), stop=2).outputs[2][0, -1]
    method = method_of(model, "memit", layers=LAYERS, steps=5, contexts=(), lam=0.1)
    editor = Editor(model, method=method, statistics=statistics, answers=False)
    with torch.enable_grad():
        solved = editor.edit([EditRequest("{} lives in", "Nezan Girok", "Oak")]).stages[0].solution.shift[0]
    moved = run(model, ids, outputs=(2,), stop=2).outputs[2][0, -1] - still
    assert solved.norm() > 0.01
    torch.testing.assert_close(moved, solved, rtol=0, atol=1e-3 * float(solved.norm()))
    changed = [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])]
    assert changed == [f"model.language_model.layers.{layer}.mlp.down_proj.weight" for layer in LAYERS]
    editor.revert()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_tower_is_saved_and_loaded(demo, tmp_path):
    """A folder of a vision-language model loads as one."""
    torch.manual_seed(0)
    model = EditableModel(qwen2_vl().eval(), demo.tokenizer)
    save_model(model, tmp_path / "vl")
    again = load(tmp_path / "vl", device="cpu")
    assert type(again.model) is Qwen2VLForConditionalGeneration
    assert again.fingerprint() == model.fingerprint()
