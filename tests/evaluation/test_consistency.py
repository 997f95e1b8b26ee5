"""Consistency by hand, against scikit-learn as the published code calls it, and on a model's own texts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from metake.errors import MetakeError
from metake.evaluation import metrics
from metake.evaluation.consistency import References, words
from metake.evaluation.counterfact import sample_texts
from metake.evaluation.metrics import Evaluator

BORN_IN_OSLO = ("P19", "Q585")
TEXTS = {
    BORN_IN_OSLO: ["Ada was born in Oslo, Norway.", "Bo (b. 1901, Oslo) sang Norse songs; Oslo's own."],
    ("P106", "Q42973"): ["An architect draws.", "THE architect's snake_case naïve façade, 3 of 12 Straße"],
    ("P106", "Q1"): [],
    ("P106", "Q2"): ["a . 1 !"],
}
SPOKEN = [
    ["Ada grew up in Oslo.", "Oslo, Oslo; an ARCHITECT of naïve façades"],
    ["the the the the"],
    ["Straße, STRASSE 12 snake_case"],
    [TEXTS[BORN_IN_OSLO][0], TEXTS[BORN_IN_OSLO][1]],
]


@pytest.fixture
def record(records):
    return replace(records[0], attribute=BORN_IN_OSLO, generation_prompts=("The market", "The mill"))


def test_words_have_two_letters_and_no_case():
    assert words("A b, Oslo oslo's x2 _") == {"oslo": 2, "x2": 1}


def test_consistency_equals_cosine_by_hand(record):
    """Three texts; oslo stands in two of them, born in one: weights 1 + ln(4/3) and 1 + ln 2."""
    references = References({BORN_IN_OSLO: ["Oslo born", "oslo"], ("P1", "Q1"): ["elsewhere"]})
    often, seldom = 1 + np.log(4 / 3), 1 + np.log(2)
    text, about = np.array([often, 0, seldom]), np.array([2 * often, seldom, 0])  # oslo, born, elsewhere
    expected = text @ about / np.linalg.norm(text) / np.linalg.norm(about)
    assert references.consistency(record, ["Oslo is", "elsewhere"]) == pytest.approx(expected)


def test_consistency_counts_words_per_text_and_vector():
    """A word counts once per text that holds it and as often as it stands in a vector.

    Two texts: 'so' three times in one of them, 'it' in both; weights 1 + ln(3/2) and 1 + ln(3/3).
    """
    references = References({BORN_IN_OSLO: ["so so so it"], ("P1", "Q1"): ["it"]})
    assert references.weights == pytest.approx({"so": 1 + np.log(3 / 2), "it": 1})
    so, it = 2 * (1 + np.log(3 / 2)), 1
    length = np.hypot(so, it)
    assert references.vector("So it so") == pytest.approx({"so": so / length, "it": it / length})


def test_consistency_is_high_for_references_and_low_for_babble(record):
    """The reference texts themselves are consistent and babble is not."""
    references = References(TEXTS)
    assert references.consistency(record, TEXTS[BORN_IN_OSLO]) == pytest.approx(1)
    assert references.consistency(record, ["zzz zzz"]) == references.consistency(record, [""]) == 0


@pytest.mark.parametrize("attribute", [None, ("P19", "Q1"), ("P106", "Q1"), ("P106", "Q2")])
def test_consistency_has_no_value_without_references(record, attribute):
    """Without reference texts there is no value."""
    assert np.isnan(References(TEXTS).consistency(replace(record, attribute=attribute), ["Oslo"]))


@pytest.mark.parametrize("attribute", list(TEXTS)[:2])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_consistency_equals_scikit_learn(record, attribute, spoken):
    """Against scikit learn as published.

    Fitted on every reference text, then the cosine of the two joined texts.
    """
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectorizer = text.TfidfVectorizer().fit([t for about in TEXTS.values() for t in about])
    ours = References(TEXTS)
    assert ours.weights == pytest.approx(
        {word: vectorizer.idf_[i] for word, i in vectorizer.vocabulary_.items()}
    )
    a, b = vectorizer.transform([" ".join(spoken), " ".join(TEXTS[attribute])]).toarray()
    value = ours.consistency(replace(record, attribute=attribute), spoken)
    assert value == pytest.approx(float(a @ b), abs=1e-12)


def test_consistency_and_fluency_share_one_sampling(demo, record, records, monkeypatch):
    sampled = []

    def sample(*arguments):
        sampled.append(sample_texts(*arguments))
        return sampled[-1]

    monkeypatch.setattr(metrics, "sample_texts", sample)
    references = References({BORN_IN_OSLO: ["The market of Oslo", "The mill"]})
    evaluator = Evaluator(
        demo,
        [record, *records[1:3]],
        generate=False,
        sampled_records=2,
        references=references,
    )
    values = evaluator.measure().values
    assert len(sampled) == 2
    assert np.isfinite(values["fluency"]).tolist() == [True, True, False]
    assert np.isfinite(values["consistency"]).tolist() == [True, False, False]  # the second has no attribute
    assert values["consistency"][0] == references.consistency(record, sampled[0]) > 0


def entry(**change):
    return {"relation_id": "P19", "target_id": "Q585", "samples": [{"name": "Ada", "text": "Oslo"}], **change}


def test_read_references_joins_texts_of_one_attribute(write, record):
    """Places that speak of one attribute are joined."""
    content = [entry(), entry(target_id="Q1"), entry(samples=[{"text": "Norway"}])]
    references = References.read(write("snippets.json", json.dumps(content)))
    assert references.texts == {BORN_IN_OSLO: ["Oslo", "Norway"], ("P19", "Q1"): ["Oslo"]}
    assert references.about(record) == "Oslo Norway"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "no reference texts; the file must be a list"),
        ("{}", "no reference texts; the file must be a list"),
        ("[3]", "record 1 is not an object"),
        (
            [entry(), entry(relation_id=None), entry(target_id="")],
            "record 2: relation_id is null; record 3: target_id is empty; the file must be a list",
        ),
        ([entry(target_id=585)], "record 1: target_id must be a text"),
        ([entry(samples=None)], "record 1: samples must be a list of objects with a text; the file"),
        ([entry(samples=["Oslo"])], "record 1: samples must be a list"),
        ([entry(samples=[{"name": "Ada"}])], "record 1: samples must be a list"),
    ],
)
def test_read_references_refuses_other_files(write, content, complaint):
    path = write("snippets.json", content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(MetakeError, match=rf"snippets\.json: .*{complaint}") as raised:
        References.read(path)
    assert "\n" not in str(raised.value)


def test_read_references_names_a_missing_file(tmp_path):
    with pytest.raises(MetakeError, match=r"nowhere.json: cannot be read \(No such file"):
        References.read(tmp_path / "nowhere.json")
