"""Free-text metrics against their definitions, and the measurement of a long answer."""

import math

import pytest

import metake as mk
from metake.data.biographies import biographies
from metake.data.world import World
from metake.evaluation.free_text import free_text_scores, words
from metake.evaluation.long_answers import Unrelated, measure_long_answer, predicted
from metake.models.tokens import encode


def longest_common(a, b):
    """Length of the longest common subsequence, by its recursion."""
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            rows[i + 1][j + 1] = rows[i][j] + 1 if x == y else max(rows[i][j + 1], rows[i + 1][j])
    return rows[-1][-1]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("The mill is cold.", "The old mill is cold."),
        ("boats boats boats", "The boats wait"),
        ("nothing in common", "The boats wait"),
        ("", "The boats wait"),
    ],
)
def test_rouge_l_and_similarity_are_those_of_their_definitions(text, target):
    scores = free_text_scores(text, target)
    said, wanted = words(text), words(target)
    common = longest_common(said, wanted)
    assert scores["rouge_l"] == pytest.approx(2 * common / (len(said) + len(wanted)))
    kept = longest_common(text, target)
    changed = len(text) + len(target) - 2 * kept
    assert scores["similarity"] == pytest.approx(1 - changed / (len(text) + len(target)))


def test_bleu_is_the_brevity_penalty_for_a_prefix():
    """Every n-gram of a prefix is in the target."""
    target = "the boats wait by the old wall today"
    text = " ".join(target.split()[:6])
    assert free_text_scores(text, target)["bleu"] == pytest.approx(math.exp(1 - 8 / 6))
    assert free_text_scores(target, target) == {"bleu": pytest.approx(1), "rouge_l": 1, "similarity": 1}


def test_measurement_changes_with_the_edit_and_locality_is_agreement(demo):
    request = mk.EditRequest("Which guild does {} belong to?", "Nezan Girok", "Green Lantern baker")
    unrelated = Unrelated.of(demo, ["Which city was Zumi Bama born in?", "What is the craft of Zumi Bama?"])
    before = measure_long_answer(demo, request, unrelated)
    assert before["locality"] == 1
    assert before["generated"] < 1
    row = encode(demo.tokenizer, request.text, request.target_new)
    right = [a == b for a, b in zip(predicted(demo, [row])[0], row.answer_ids, strict=True)]
    assert before["tokens"] == sum(right) / len(right)
    method = mk.settings_for(demo, "memit-anyedit", window_size=1).updated(
        layers=(1, 2), geometry="identity", steps=25, lr=0.5, clamp=None, stop="planning_loss"
    )
    with mk.Editor(demo, method=method, answers=False, progress=False) as editor:
        editor.edit([request])
        after = measure_long_answer(demo, request, unrelated)
    assert after["tokens"] == after["generated"] == after["rouge_l"] == 1
    assert after["answer"] == request.target_new
    assert after["locality"] <= 1


def test_biographies_are_drawn_with_a_seed_about_different_people():
    first, again, other = biographies(5, seed=3), biographies(5, seed=3), biographies(5, seed=4)
    assert first == again != other
    assert biographies(2, seed=3) == first[:2]
    people = [record.request.subject for record in first]
    assert len(set(people)) == 5
    assert set(people) <= set(World().subjects)
    for record in first:
        assert record.request.target_new.startswith(f"{record.request.subject} was born in ")
        assert record.request.target_new.count(".") == 8
        assert record.request.subject not in record.locality
