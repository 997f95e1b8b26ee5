"""The WILD protocol: complete answers to the bare question, compared after normalization."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metake.editor import Editor
from metake.errors import MetakeError
from metake.evaluation.conclusion import conclude
from metake.evaluation.metrics import WILD, Evaluator, Measurement
from metake.evaluation.protocol import Protocol
from metake.evaluation.rules import PublishedRules
from metake.evaluation.wild import WildRules, cut, normalize, token_cap
from metake.models.greedy import continue_greedily
from metake.models.load import load
from metake.models.tokens import encode
from metake.presets import settings_for


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Red-Oak Guild.", "redoak guild"),
        ("an answer, A", "answer"),
        ("Theodore", "theodore"),  # no article inside a word
        ("Zürich!", "zürich"),
        ("«Oslo»", "«oslo»"),  # other punctuation than ASCII's stays
        ("The The", "the the"),  # nothing would be left
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_normalize_is_that_of_qaedit(text, normalized):
    assert normalize(text) == normalized


@pytest.mark.parametrize(
    ("text", "target", "answer"),
    [
        (" Oslo. It is", "Bern", "Oslo"),
        ("\n Oslo\nQ: Who", "Bern", "Oslo"),
        ("St. Louis. It is", "St. Louis", "St. Louis"),
        ("St. Louis. It is", "Bern", "St"),
        ("U.S. It is", "U.S.", "U.S"),
        ("3.5 million", "3.5 million.", "3.5 million"),
        ("Red\nOak\nMill", "a\nb", "Red\nOak"),
        ("", "Bern", ""),
    ],
)
def test_answer_ends_at_a_line_or_full_stop_that_the_target_does_not_contain(text, target, answer):
    assert cut(text, target) == answer


def test_cap_is_longer_than_every_target(demo):
    """50 tokens as in WILD, or more for a longer target; a long answer is not cut within its target."""
    assert token_cap(demo.tokenizer, ["Oslo"]) == token_cap(demo.tokenizer, []) == 50
    long = " ".join(["mill"] * 70)
    assert token_cap(demo.tokenizer, ["Oslo", long]) == encode(demo.tokenizer, "?", long).answer + 3 > 70


def test_long_target_is_generated_in_full(demo, records, monkeypatch):
    """The cap that is used is that of all targets."""
    lengths = []

    def generate(model, rows, caps, max_tokens, finished):
        lengths.extend(caps)
        return ["x"] * len(rows)

    monkeypatch.setattr("metake.evaluation.wild.continue_greedily", generate)
    WildRules().read(demo, ["a", "b"], ["Oslo", " ".join(["mill"] * 70)], 1024)
    assert lengths == [token_cap(demo.tokenizer, [" ".join(["mill"] * 70)])] * 2
    assert lengths[0] > 70


def test_generation_ends_where_all_answers_are_finished(demo, monkeypatch):
    """Answers are those of a generation to the end; fewer passes are made."""
    prompts = [encode(demo.tokenizer, text).ids for text in ("What is the craft of Nezan Girok?", "The mill")]
    passes, forward = [], demo.model.forward
    monkeypatch.setattr(demo.model, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    whole = continue_greedily(demo, prompts, [20, 20])
    count = len(passes)
    short = continue_greedily(demo, prompts, [20, 20], finished=lambda i, text: len(text) > (3, 6)[i])
    assert all(text.startswith(part) and part for text, part in zip(whole, short, strict=True))
    assert len(short[1]) > 6
    assert len(passes) - count < count


SAID = ("The Red Oak!", "Red Oak, in the north", "Ghent")


@pytest.fixture
def said(monkeypatch):
    """The model's answers, one per prompt of each record."""
    answers = list(SAID)
    monkeypatch.setattr("metake.evaluation.wild.continue_greedily", lambda *_, **__: answers)
    return answers


def measured(demo, records, judge=None, **options):
    record = replace(records[0], request=replace(records[0].request, target_new="red oak"))
    return Evaluator(demo, [record], rules=WildRules(judge)).measure(**options)


def test_wild_scores_normalized_answers(demo, records, said):
    seen = measured(demo, records)
    found = {name: seen.values[name][0] for name in WILD}
    assert found == {
        "wild_exact": 1.0,
        "wild_exact_rephrase": 0.0,
        "wild_start": 1.0,
        "wild_start_rephrase": 1.0,
        "wild_judge": pytest.approx(np.nan, nan_ok=True),
        "wild_judge_rephrase": pytest.approx(np.nan, nan_ok=True),
        "wild_locality": 1.0,
    }
    assert seen.values["generation"].tolist() == [
        0.0
    ]  # of the published protocol: "The Red Oak!" is not the target
    assert np.isfinite(seen.values["efficacy"]).all()  # teacher-forced, for comparison
    said[2] = "ghent"
    assert measured(demo, records, reference=seen).values["wild_locality"].tolist() == [0.0]


def test_judge_gets_question_target_and_answer(demo, records, said):
    asked = []

    def judge(question, target, answer):
        asked.append((question, target, answer))
        return "north" in answer

    seen = measured(demo, records, judge)
    assert asked == [
        (records[0].request.text, "red oak", "The Red Oak!"),
        (records[0].rephrase, "red oak", "Red Oak, in the north"),
    ]
    assert [seen.values[f"wild_judge{s}"][0] for s in ("", "_rephrase")] == [0.0, 1.0]


def test_judge_has_to_answer_true_or_false(demo, records, said):
    with pytest.raises(
        MetakeError, match=r"^judge: must return True or False, got 'yes' for the answer 'The Red Oak!'$"
    ):
        measured(demo, records, lambda *_: "yes")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "widl"}, r"^protocol: unknown 'widl'; did you mean 'wild'"),
        (
            {"name": "wild", "generate": False},
            r"^protocol: wild judges free answers; leave out --no-generate",
        ),
        ({"judge": print}, r"^judge: the published protocol has none; give name='wild'$"),
        ({"name": "wild", "judge": "gpt"}, r"^judge: must be a function of question, target and answer"),
    ],
)
def test_protocol_refuses_rules_that_do_not_fit(records, options, complaint):
    with pytest.raises(MetakeError, match=complaint):
        Protocol(records[:1], 1, **options)


@pytest.mark.parametrize(
    ("batch", "consecutive", "editing"),
    [(1, False, "single"), (2, False, "batch"), (3, True, "batch"), (1, True, "sequential")],
)
def test_results_state_the_protocol(demo, records, batch, consecutive, editing):
    found = Protocol(records[:3], batch, consecutive, name="wild").described(demo)
    assert (found["name"], found["editing"], found["judge"]) == ("wild", editing, None)
    assert found["prompt"] == "as in the file, nothing added"
    assert found["max_new_tokens"] == 50
    assert found["stop"][-2:] == ["\n", "."]
    assert Protocol(records[:3], batch, consecutive).described(demo)["name"] == "published"
    given = Protocol(records[:3], batch, consecutive).described(demo, given=True)
    assert given["editing"] == "given"


def test_wild_run_has_its_metrics_beside_the_teacher_forced_ones(demo, records, tmp_path):
    """A run of single edits; each run with other rules has other checkpoints."""
    method = settings_for(demo, "ultraedit", layers=(2, 3))
    protocol = Protocol(records[:2], 1, consecutive=False, name="wild", judge=lambda *_: True)
    results = protocol.run(demo, [method])
    content = results.content
    assert content["protocol"]["name"] == "wild"
    assert content["protocol"]["judge"].endswith("<lambda>")
    (row,) = content["methods"]
    assert set(WILD) <= set(row["per_record"])
    assert row["mean"]["wild_judge"] == 1.0
    assert "generation" in row["per_record"]
    assert results.headline()[:4] == ("wild_exact", "wild_exact_rephrase", "wild_locality", "efficacy")
    assert "WILD exact" in results.table()
    assert conclude(content)[0].startswith("Answers that begin with the target: ultraedit ")
    plain = replace(protocol, name="published", judge=None)
    keys = [each.measured() for each in (plain, replace(protocol, judge=None), protocol)]
    assert len({str(key) for key in keys}) == 3
    assert len(keys[0]) == 5  # checkpoints of the published protocol are those of earlier versions


def replayed(tokenizer, texts):
    """`continue_greedily` of a model that continues with given texts; the rows of a batch end together."""

    def continue_with(model, rows, lengths, max_tokens=None, finished=None):
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        for step in range(1, max(lengths) + 1):
            found = [tokenizer.decode(row[: min(step, n)]) for row, n in zip(ids, lengths, strict=True)]
            if finished is not None and all([finished(i, text) for i, text in enumerate(found)]):
                break
        return found

    return continue_with


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_wild_run_has_the_free_answers_of_the_published_protocol(demo, data):
    """Answers of one generation, cut where the published protocol ends them: after its number of tokens, or a line."""
    words = st.lists(
        st.sampled_from(["mill", "mill.", "the", "town", "St. Ives", "\n"]), min_size=1, max_size=30
    )
    texts = data.draw(st.lists(words.map(" ".join), min_size=1, max_size=4))
    targets = [data.draw(st.sampled_from(["mill", "St. Ives", "the mill town", text[:40]])) for text in texts]
    prompts = ["Where?"] * len(texts)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("metake.evaluation.wild", "metake.models.greedy"):
            patch.setattr(f"{module}.continue_greedily", replayed(demo.tokenizer, texts))
        read = WildRules().read(demo, prompts, targets, 4096)
        assert [answer.published for answer in read] == PublishedRules().read(demo, prompts, targets, 4096)
        complete = replayed(demo.tokenizer, texts)(
            demo, [], [token_cap(demo.tokenizer, targets)] * len(texts)
        )
        assert read == [cut(text, target) for text, target in zip(complete, targets, strict=True)]


def test_wild_run_has_the_free_metrics_of_the_published_protocol(demo, records):
    with Editor(demo.model, demo.tokenizer, settings_for(demo, "ft-m")) as editor:
        editor.edit([r.request for r in records[:3]])
        wild, plain = (Evaluator(demo, records[:6], rules=r()).measure() for r in (WildRules, PublishedRules))
    for name in ("generation", "generation_rephrase", "generation_start"):
        assert wild.values[name].tolist() == plain.values[name].tolist(), name
    assert 0 < wild.mean("generation") < 1


def test_measurement_of_an_earlier_version_has_no_value_of_a_new_metric():
    old = {
        "values": {"efficacy": [1.0]},
        "perplexity": None,
        "perplexity_median": None,
        "answers": [["a", "", ""]],
    }
    found = Measurement.of_plain(old)
    assert found.mean("efficacy") == 1.0
    assert np.isnan(found.mean("wild_exact"))


def test_wild_uses_the_chat_template(talking):
    model = load(talking, chat=True)
    assert WildRules().described(model, [])["prompt"] == "in the chat template, as a user turn"


def test_evaluate_takes_the_name_of_the_protocol(call, tmp_path, monkeypatch):
    from metake.shipped import ASSETS

    common = [
        "evaluate",
        "--model",
        "demo",
        "--methods",
        "ultraedit",
        "--data",
        ASSETS / "world" / "dev.json",
    ]
    common += ["--edits", 2, "--batch", 1, "--alone", "--json", "--out", tmp_path / "out"]
    code, out, errors = call(*common, "--protocol", "wlid")
    assert (code, out) == (2, "")
    assert "protocol: unknown 'wlid'" in errors
    assert not (tmp_path / "out").exists()
    code, out, _ = call(*common, "--protocol", "wild")
    assert code == 0
    assert '"editing": "single"' in out
    assert '"wild_exact"' in out


def test_published_rules_are_the_default(demo, records):
    assert isinstance(Evaluator(demo, records[:1]).rules, PublishedRules)
    assert Protocol(records[:1], 1).rules.key() == []
