"""The world is what its description promises."""

import hashlib
from collections import Counter
from itertools import islice

import pytest

from metake.data.world import World
from metake.shipped import DEMOS


@pytest.fixture(scope="module")
def world():
    return World()


def test_world_has_its_size_and_wordings(world):
    assert len(world.facts) >= 2500
    assert len(world.relations) >= 4
    assert all(len(r.wordings) >= 4 and len(set(r.wordings)) == len(r.wordings) for r in world.relations)


def test_world_names_relations(world):
    assert [r.name for r in world.relations] == ["birthplace", "craft", "guild", "instrument"]


def test_world_has_a_quarter_of_people_for_development():
    """A quarter of the people rounded down is for development."""
    dev, test = World(people=10).records()
    assert [len({r["subject"] for r in part}) for part in (dev, test)] == [2, 8]
    assert [len(dev), len(test)] == [8, 32]


def test_world_names_share_both_words(world):
    first = Counter(s.split()[0] for s in world.subjects)
    last = Counter(s.split()[1] for s in world.subjects)
    assert len(set(world.subjects)) == len(world.subjects)
    assert min(first.values()) >= 2
    assert min(last.values()) >= 2


def test_world_has_targets_of_one_and_several_tokens(world, demo):
    lengths = {len(demo.tokenizer(" " + v).input_ids) for r in world.relations for v in r.values}
    assert 1 in lengths
    assert max(lengths) >= 2


def test_world_plans_with_no_judging_wording(world):
    """The rephrase and neighbor wordings are never planned with.

    src is wording 0, rephrase 1, loc 2: no record plans with one that another is judged by.
    """
    dev, test = world.records()
    by_subject = {(f.subject, f.ask(0)): f for f in world.facts}
    for record in dev[:200] + test[:200]:
        fact = by_subject[record["subject"], record["src"]]
        assert record["rephrase"] == fact.ask(1)
        assert record["loc"] + "?" not in {record["src"], record["rephrase"]}
        assert record["subject"] not in record["loc"]


def test_world_edits_no_fact_asked_about_others(world):
    """However many facts of a part are edited, the facts its records ask about other people are not among them."""
    for mine, theirs in (world.records(), world.records()[::-1]):
        edited = {r["subject"] for r in mine}
        asked = {next(s for s in world.subjects if s in r["loc"]) for r in mine}
        assert asked <= {r["subject"] for r in theirs}
        assert not asked & edited
        assert len(asked) > 100


def test_world_is_seeded(world):
    assert World().text(50, seed=3) == world.text(50, seed=3)
    assert world.text(50, seed=3) != world.text(50, seed=4)
    assert World(seed=1).subjects != world.subjects


def test_world_lines_have_every_fact_in_every_wording_once(world):
    """A round of lines asks every fact in every wording once.

    A quarter as many lines of filler beside them, and a sentence of it before a quarter of the questions.
    """
    asked = {fact.ask(w): " " + fact.value for fact in world.facts for w in range(4)}
    stream, found, filler, led = world.lines(seed=1), [], 0, 0
    while len(found) < len(asked):
        text, answer = next(stream)
        if not answer:
            filler += 1
            continue
        lead, stop, question = text.rpartition(". ")
        led += bool(stop)
        assert asked[question] == answer
        assert not lead or not lead.endswith("?")
        found.append(question)
    assert sorted(found) == sorted(asked)
    assert found != list(asked)
    for count in (filler, led):  # five standard deviations of a binomial
        assert abs(count / len(asked) - 0.25) < 5 * (0.25 * 0.75 / len(asked)) ** 0.5
    bare = list(islice(world.lines(seed=1, filler_share=0.0), 200))
    assert all(asked[question] == answer for question, answer in bare)


def test_world_text_is_that_of_the_demo_statistics(world):
    """Documented numbers depend on every word of it."""
    text = world.text(2000, seed=7)
    assert text.count("\n") == 2000
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "a4ddac0d25b6de69"


@pytest.mark.parametrize("name", DEMOS)
def test_shipped_models_answer_the_facts_of_the_world(name):
    """Measured here, not read from a file: greedy answers to 200 facts in every wording."""
    from metake.models.greedy import greedy_answers
    from metake.models.load import load

    model = load(name, device="cpu")
    facts = World().facts[::13]
    for wording in range(4):
        prompts, values = [f.ask(wording) for f in facts], [f.value for f in facts]
        answers = greedy_answers(model, prompts, values)
        right = sum(a.strip() == f.value for a, f in zip(answers, facts, strict=True))
        assert right >= 0.99 * len(facts)


@pytest.mark.parametrize("name", DEMOS)
def test_shipped_models_are_small(name):
    from metake.shipped import ASSETS

    assert sum(f.stat().st_size for f in (ASSETS / name).iterdir()) <= 6_000_000
