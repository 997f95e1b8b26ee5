"""Published hyper-parameter files mean here what they mean there, and complain in one line."""

import json

import pytest

from metake.errors import MetakeError
from metake.presets import settings_for
from metake.published import parse_files, published_for, read_published
from tests.cases import method_of

pytestmark = pytest.mark.filterwarnings("error:.*not known")

# names and kinds as in the published files; the numbers are of no published file
MEMIT = {
    "model_name": "gpt2-xl",
    "layers": [1, 2],
    "clamp_norm_factor": 0.6,
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 17,
    "v_lr": 0.3,
    "v_loss_layer": 5,
    "v_weight_decay": 0.2,
    "kl_factor": 0.05,
    "mom2_adjustment": True,
    "mom2_update_weight": 12000,
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "lm_head",
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000,
    "mom2_dtype": "float32",
}
YAML = """
alg_name: "AlphaEdit"
stats_dir: "./data/stats"
P_loc: "./null_space_project.pt"
device: 0
layers: [1, 2]
fact_token: "subject_last"
v_num_grad_steps: 12
v_lr: 5e-1
clamp_norm_factor: 4
mom2_adjustment: true
mom2_update_weight: 15000
rewrite_module_tmp: "transformer.h.{}.mlp.c_proj"
nullspace_threshold: 3e-2
L2: 7
model_parallel: false
"""
ULTRA = """
alg_name: "ULTRAEDIT"
inner_params:
- transformer.h.2.mlp.c_proj
- transformer.h.3.mlp.c_proj
lr: 2e-6
token: mask
batch_size: 10
"""


def test_read_published_takes_every_number_of_json(demo, write, recwarn):
    """Every number of a JSON file arrives."""
    changes = read_published(write("gpt2-xl.json", json.dumps(MEMIT)), demo)
    made = settings_for(demo, "memit", name="none", **changes)
    names = ("layers", "clamp", "steps", "lr", "decay", "kl", "lam")
    assert [made.value(name) for name in names] == [(1, 2), 0.6, 17, 0.3, 0.2, 0.05, 12000]
    assert (made.name, made.geometry.kind, made.planner.kind) == ("memit", "ridge", "open-loop")
    assert not recwarn.list


def test_read_published_takes_exponents_of_yaml(demo, write):
    """YAML with exponents that YAML reads as text."""
    changes = read_published(write("a.yaml", YAML), demo)
    made = method_of(demo, "alphaedit", **changes)
    assert [made.value(name) for name in ("lr", "threshold", "l2", "clamp")] == [0.5, 0.03, 7, 4]
    assert made.geometry.kind == "projected"


def test_read_published_takes_modules_of_ultraedit_as_layers(demo, write):
    made = settings_for(demo, "ultraedit", **read_published(write("u.yaml", ULTRA), demo))
    assert (made.layers, made.lr) == ((2, 3), 2e-6)


def test_read_published_rome_without_moments_has_no_c(demo, write):
    path = write("rome.json", json.dumps({**MEMIT, "mom2_adjustment": False, "layers": [2]}))
    made = method_of(demo, "rome", **read_published(path, demo))
    assert (made.geometry.kind, made.fit, made.needs_statistics) == (
        "identity",
        "equality_constrained",
        False,
    )


@pytest.mark.parametrize(("token", "lookup"), [("subject_last", "subject"), ("last", "prompt")])
def test_read_published_takes_romes_fact_token_as_lookup(demo, write, token, lookup):
    """ROME's fact token is where keys are read."""
    path = write("rome.json", json.dumps({**MEMIT, "fact_token": token}))
    assert settings_for(demo, "memit", **read_published(path, demo)).lookup == lookup


def test_read_published_takes_blues_switch_as_allocation(demo, write):
    path = write("blue.json", json.dumps({**MEMIT, "blue": True}))
    made = method_of(demo, "alphaedit", **read_published(path, demo))
    assert made.allocation.kind == "boundary"


def test_read_published_takes_emmets_lambda_as_soft_fit(demo, write):
    """As measured against their code: a batch under EMMET(lambda, e) is MEMIT's at lambda e, in one layer."""
    path = write(
        "emmet.json", json.dumps({**MEMIT, "emmet_lambda": 0.1, "update_norm_lambda": 0, "layers": [2]})
    )
    made = settings_for(demo, "emmet", **read_published(path, demo))
    assert (made.fit, made.value("lam"), made.allocation.kind) == (
        "least_squares",
        pytest.approx(1200),
        "last",
    )
    path = write("exact.json", json.dumps({**MEMIT, "emmet_lambda": 0}))
    assert settings_for(demo, "emmet", **read_published(path, demo)).fit == "equality_constrained"


def test_read_published_lists_unknown_names(demo, write):
    path = write("m.json", json.dumps({**MEMIT, "v_gain": 3, "edit_layer": 5}))
    with pytest.warns(UserWarning, match="not known and not used: edit_layer, v_gain$"):
        read_published(path, demo)


def test_published_for_finds_files_by_method(demo, write):
    memit = write("memit.json", json.dumps(MEMIT))
    other = write("other.json", json.dumps({**MEMIT, "v_lr": 0.1}))
    files = parse_files([f"rect={other}", str(memit)])
    found = published_for(files, ["memit", "rect"], demo)
    assert (found["memit"]["lr"], found["rect"]["lr"]) == (0.3, 0.1)
    assert published_for({}, ["memit"], demo) == {"memit": {}}
    with pytest.raises(MetakeError, match="unknown 'prune'; known: memit"):
        published_for({"prune": memit}, ["memit"], demo)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "m.json",
            json.dumps({**MEMIT, "fact_token": "subject_first"}),
            "fact_token: only 'subject_last' is known",
        ),
        ("m.json", json.dumps({**MEMIT, "layers": [99]}), "99"),
        (
            "m.json",
            json.dumps({**MEMIT, "rewrite_module_tmp": "transformer.h.{}.mlp.c_fc"}),
            "rewrite_module_tmp: transformer.h.1.mlp.c_fc is not the down-projection of layer 1",
        ),
        (
            "u.yaml",
            ULTRA.replace(".3.mlp.c_proj", ".3.mlp.c_fc"),
            "inner_params: .* not the down-projection of layer 3",
        ),
        ("u.yaml", "inner_params: [head]", "inner_params: want names of modules"),
        ("m.json", "[]", "no hyper-parameters"),
        ("m.yaml", "a: [", "not YAML"),
        ("m.json", "{", "not JSON"),
    ],
)
def test_read_published_reports_unusable_values_in_one_line(demo, write, name, text, line):
    """What cannot be used is one line."""
    with pytest.raises(MetakeError, match=line) as caught:
        read_published(write(name, text), demo)
    assert "\n" not in str(caught.value)


def test_read_published_names_a_missing_file(demo, tmp_path):
    for name in ("a.json", "a.yaml"):
        with pytest.raises(MetakeError, match=name):
            read_published(tmp_path / name, demo)
