"""The model card: what it states, and its front matter."""

import pytest
import yaml

from metake.deltas import Delta
from metake.errors import MetakeError

pytestmark = pytest.mark.parametrize("family", ["llama"])


def card_of(delta, model, folder, **options):
    delta.save_pretrained(folder, model, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_card_states_edits_method_measurements_and_provenance(tiny_model, delta, tmp_path):
    note = {
        **delta.note,
        "method": "memit",
        "version": "0.0.7",
        "constraint": {"lam": 3.0},
        "settings": {"planner": {"seed": 4}, "layers": [1, 3]},
        "reasons": ["lam: measured"],
        "edits": [{"prompt": "{} | is", "subject": "a\nb", "target_new": "<b>"}],
    }
    report = {
        "layers": [1, 3],
        "eta": [[0.25, 0.75], [1.0, 1.0]],
        "success": [True],
        "versions": {"torch": "9.9"},
        "data": "facts.json",
        "seed": 11,
        "metrics": {"Spe": 0.5},
    }
    text = card_of(
        Delta(delta.factors, delta.model, note), tiny_model, tmp_path / "a", report=report, base="o/n"
    )
    front, body = text.split("---\n", 2)[1:]
    assert yaml.safe_load(front) == {
        "base_model": "o/n",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "knowledge-editing", "metake"],
    }
    for line in (
        "| {} \\| is | a b | &lt;b> | yes |",
        "| `model.layers.1.mlp.down_proj` | 8 | 0 | 0.500 |",
        "| answers that begin with the new one | 1 of 1 |",
        "| Spe | 0.5 |",
        f"| fingerprint of its weights | {tiny_model.fingerprint()} |",
        "| method | memit |",
        "| constraint | lam 3 |",
        "| data | facts.json |",
        "| seeds | run 11, planner 4 |",
        "| metake | 0.0.7 |",
        "| torch | 9.9 |",
        "- lam: measured",
        "    vllm serve o/n --enable-lora --lora-modules edit=" + str(tmp_path / "a"),
    ):
        assert line in body.splitlines(), line


def test_card_of_a_bare_delta_says_what_is_not_recorded(tiny_model, delta, tmp_path):
    text = card_of(Delta(delta.factors), tiny_model, tmp_path / "a")
    assert "0 edits." in text
    assert "| method | not recorded |" in text
    assert "Not recorded." in text
    assert "| `model.layers.3.mlp.down_proj` | 8 | 0 | not recorded |" in text


def test_card_shows_the_first_of_many_edits(tiny_model, delta, tmp_path):
    edits = [{"prompt": "{} is", "subject": f"s{i}", "target_new": "y"} for i in range(60)]
    text = card_of(Delta(delta.factors, "", {"edits": edits}), tiny_model, tmp_path / "a")
    assert "60 edits." in text
    assert "| s49 |" in text
    assert "| s50 |" not in text
    assert "The first 50 are shown" in text


@pytest.mark.parametrize(
    ("report", "field"),
    [
        (5, "all of it"),
        ({"success": 5}, "success"),
        ({"success": ["a"]}, "success.0"),
        ({"metrics": None}, "metrics"),
        ({"metrics": [1]}, "metrics"),
        ({"layers": 3}, "layers"),
        ({"layers": [3], "eta": ["x"]}, "eta.0"),
        ({"layers": [3, 4], "eta": [0.5, 0.5]}, "eta.0"),
        ({"versions": "x"}, "versions"),
    ],
)
def test_report_of_another_form_is_refused_by_field(report, field, tiny_model, delta, tmp_path):
    with pytest.raises(MetakeError, match=f"report: {field}: "):
        card_of(delta, tiny_model, tmp_path / "out", report=report)
    assert not (tmp_path / "out").exists()
