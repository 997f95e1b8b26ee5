"""Answers to other questions without an edit and with it."""

import pytest
import torch

import metake
from tests.cases import method_of

FACT = metake.EditRequest("The one who works at the {} is a", "market", "baker")
OTHER = metake.EditRequest("The one who works at the {} is a", "river", "miner")
REPHRASE, NEIGHBOR = "At the market works a", "The one who works at the garden is a"
STRONG = {
    "ultraedit": {"gradient_lr": 1e-2},
    "prune": {"lam": 1e-3, "clamp": None, "lr": 2.0, "steps": 20},
}
CHANGES = {"layers": (0, 1, 2), "lam": 1.0, "steps": 12, "lr": 0.5, "contexts": ()}


@pytest.fixture
def editor(demo, statistics_of):
    def of(method="memit", **changes):
        chosen = method_of(demo, method, **{**CHANGES, **changes})
        return metake.Editor(demo, method=chosen, statistics=statistics_of(demo))

    before = demo.fingerprint()
    yield of
    assert demo.fingerprint() == before


def short(model, questions):
    return model.ask(questions, max_new_tokens=12)


@pytest.mark.parametrize("method", ["memit", "rect", "prune", "ultraedit"])
def test_check_compares_unedited_and_edited_model(demo, editor, method):
    """Before is the unedited model and after the edited.

    Whatever a method does to the update; weights and memory are as they were, bit for bit.
    """
    questions = [REPHRASE, NEIGHBOR, "Which city was Nezan Girok born in?"]
    before = short(demo, questions)
    with editor(method, **STRONG.get(method, {})) as e:
        e.edit([FACT, OTHER])
        e.finalize()
        weights = {n: w.clone() for n, w in demo.model.state_dict().items()}
        check = e.check(rephrases=[REPHRASE, []], neighbors=questions[1:])
        after = short(demo, questions)
        assert all(torch.equal(w, weights[n]) for n, w in demo.model.state_dict().items())
    assert [a.question for a in (*check.rephrases, *check.neighbors)] == questions
    assert [a.before for a in (*check.rephrases, *check.neighbors)] == before
    assert [a.after for a in (*check.rephrases, *check.neighbors)] == after
    assert before != after
    assert [a.success for a in check.neighbors] == [
        b == a for b, a in zip(before[1:], after[1:], strict=True)
    ]
    assert check.rephrases[0].success == after[0].startswith("baker")


def test_check_without_a_batch_leaves_out_later_ones(demo, editor):
    """The same edit made twice in between: batches are told apart by what they are, not by what they hold."""
    questions = [REPHRASE, NEIGHBOR]
    seen = [short(demo, questions)]
    with editor() as e:
        results = []
        for request in (FACT, OTHER, OTHER):
            results.append(e.edit(request))
            seen.append(short(demo, questions))
        for result, before in zip(results, seen, strict=False):
            answers = e.check(neighbors=questions, result=result).neighbors
            assert [a.before for a in answers] == before
            assert [a.after for a in answers] == seen[-1]
        assert seen[0] != seen[1]


def test_check_of_one_request_takes_one_or_several_texts(demo, editor):
    with editor() as e:
        result = e.edit(FACT)
        one = e.check(REPHRASE)
        assert e.check([REPHRASE, FACT.text]).rephrases[0] == one.rephrases[0]
        assert e.check(None, NEIGHBOR).rephrases == ()
        assert e.check((), [NEIGHBOR]).neighbors == e.check(neighbors=NEIGHBOR).neighbors
        own = e.check(FACT.text).rephrases[0]
        assert own == result.answers[0]


def test_check_of_several_requests_takes_an_entry_each(demo, editor):
    with editor() as e:
        e.edit([FACT, OTHER])
        check = e.check([[REPHRASE, FACT.text], OTHER.text])
        assert [a.wanted for a in check.rephrases] == ["baker", "baker", "miner"]


LIST = "check: rephrases must be a list with an entry for each of the 2 requests"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "check: no question given; give rephrases, neighbors or both"),
        ({"rephrases": REPHRASE}, LIST),
        ({"rephrases": [REPHRASE]}, LIST),
        ({"rephrases": 7}, "check: rephrases must be a text or a list of texts, not int"),
        ({"rephrases": [REPHRASE, 7]}, "check: rephrase must be a text or a list of texts, not int"),
        ({"rephrases": [[REPHRASE], [7]]}, "check: rephrase must be a text, not int"),
        ({"rephrases": [" ", REPHRASE]}, "check: rephrase is empty; give it a text"),
        ({"neighbors": 7}, "check: neighbor must be a text or a list of texts, not int"),
        ({"neighbors": ""}, "check: neighbor is empty; give it a text"),
        ({"neighbors": {"a": 1}}, "check: neighbor must be a text or a list of texts, not dict"),
    ],
)
def test_check_refuses_what_is_no_question(demo, editor, given, line):
    with editor(steps=4) as e:
        e.edit([FACT, OTHER])
        with pytest.raises(metake.MetakeError) as error:
            e.check(**given)
        assert str(error.value) == line


def test_check_refuses_an_edit_that_is_not_in_the_model(demo, editor):
    with editor(steps=4) as e:
        result = e.edit(FACT)
        with pytest.raises(metake.MetakeError, match=r"^check: a question of \d+ tokens"):
            e.check("mill " * 2000)
        with (
            result.delta.applied(demo, check=False),
            pytest.raises(metake.MetakeError, match=r"^check: layer 0 was"),
        ):
            e.check(REPHRASE)
        e.revert(result)
        with pytest.raises(metake.MetakeError, match=r"^check: the model does not hold this edit"):
            e.check(REPHRASE, result=result)
        with pytest.raises(metake.MetakeError, match=r"^check: the model holds no edit of this editor"):
            e.check(REPHRASE)


def test_check_restores_edited_weights_when_interrupted(demo, editor, monkeypatch):
    with editor(steps=4) as e:
        e.edit(FACT)
        edited = demo.fingerprint()
        answers, calls = metake.checks.read_answers, []

        def interrupted(*args):
            calls.append(demo.fingerprint())
            if len(calls) == 2:
                raise KeyboardInterrupt
            return answers(*args)

        monkeypatch.setattr(metake.checks, "read_answers", interrupted)
        with pytest.raises(KeyboardInterrupt):
            e.check(REPHRASE)
        assert calls[0] == edited != calls[1]
        assert demo.fingerprint() == edited
        monkeypatch.undo()


def test_check_leaves_out_later_batches_in_other_layers(demo, editor):
    """Later batches in other layers are left out too.

    A batch that was restored from a file may be of other layers than the editor's own.
    """
    before = short(demo, [NEIGHBOR])
    with editor(layers=(3,), lam=0.01) as other:
        delta = other.edit(metake.EditRequest("The one who works at the {} is a", "garden", "miner")).delta
    with editor() as e:
        result = e.edit(FACT)
        e.restore([OTHER], delta, {})
        answer = e.check(neighbors=NEIGHBOR, result=result).neighbors[0]
    assert [answer.before] == before
    assert not answer.success
