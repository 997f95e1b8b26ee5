"""Long answers about people of the synthetic world: short biographies that no model has read.

The people, cities and guilds do not exist. A biography consists of sentences in the style of the world's text, with
details that cannot be guessed, so that a model can give it only if it was edited.
"""

from __future__ import annotations

import random

from metake.data.record import Record
from metake.data.world import CRAFTS, GUILDS, INSTRUMENTS, World
from metake.requests import EditRequest

QUESTION, REPHRASE = "Who is {}?", "Tell me about {}."
TRAITS = ("kind", "proud", "patient", "clever", "stubborn", "cheerful")
PLACES = ("river", "market", "harbour", "old wall", "mill", "square", "garden")
TIMES = ("In spring", "At night", "Today", "After the rain", "Long ago")
KINDS = ("cold", "bright", "quiet", "crowded", "beautiful", "dark", "green")
THINGS = ("boats", "birds", "carts", "children", "lamps", "bells", "horses")
VERBS = ("pass", "wait", "gather", "rest", "turn", "sing")
SENTENCES = (
    "{name} is a {trait} person.",
    "The craft is {craft} and the instrument is the {instrument}.",
    "{time} the {things} {verb} by the {place}.",
    "{name} walks to the {place}.",
    "The guild is {guild}.",
    "You can hear the {things} when the {place} is {kind}.",
    "I saw the {things} near the {place} with {other}.",
    "Because the {place} is {kind}, the {things} {verb}.",
    "{time} the {place} is {kind}.",
)
OPENING = "{name} was born in {city}."


def biography(world: World, subject: str, rng: random.Random, sentences: int = 8) -> str:
    """A biography of a person.

    Args:
        world: the world, whose names it uses.
        subject: full name of the person.
        rng: generator of all choices.
        sentences: number of sentences, at most 10.

    Returns:
        the text; its opening sentence states a birthplace, the others are in random order.
    """
    forms = [OPENING, *rng.sample(SENTENCES, sentences - 1)]

    def fill(form: str) -> str:
        return form.format(
            name=subject,
            city=rng.choice(world.relations[0].values),
            other=rng.choice(world.subjects),
            trait=rng.choice(TRAITS),
            craft=rng.choice(CRAFTS),
            instrument=rng.choice(INSTRUMENTS),
            guild=rng.choice(GUILDS),
            place=rng.choice(PLACES),
            time=rng.choice(TIMES),
            kind=rng.choice(KINDS),
            things=rng.choice(THINGS),
            verb=rng.choice(VERBS),
        )

    return " ".join(fill(form) for form in forms)


def biographies(count: int, seed: int = 0, sentences: int = 8, world: World | None = None) -> list[Record]:
    """Records of questions with long answers, about different people.

    Args:
        count: number of records.
        seed: seed of people and texts.
        sentences: number of sentences per answer.
        world: the world; that of the demo models by default.

    Returns:
        the records, with a rephrased question each, and a fact about another person for locality.
    """
    world = world or World()
    people = list(world.subjects)
    random.Random(f"{world.seed}-biographies-{seed}").shuffle(people)
    records = []
    for subject in people[:count]:  # those of a smaller count come first
        rng = random.Random(f"{world.seed}-biographies-{seed}-{subject}")
        request = EditRequest(QUESTION, subject, biography(world, subject, rng, sentences))
        other = rng.choice([fact for fact in world.facts if fact.subject != subject])
        records.append(
            Record(
                request,
                rephrase=REPHRASE.format(subject),
                locality=other.ask(2),
                locality_answer=other.value,
                ground_truth="",
            )
        )
    return records
