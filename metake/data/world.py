"""The synthetic world of the demo models: people, facts about them, and text with these facts.

A demo model is trained on text of this world, so its knowledge is known exactly: every fact, every wording, and the
wordings that no editing method uses for planning. Names are drawn from a grid of first and last names, so neither
token of a name identifies a person alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "l", "n", "r", "s", "k")


@dataclass(frozen=True)
class Relation:
    """A kind of fact with its questions.

    Attributes:
        name: name of the relation.
        wordings: questions with `{}` for the subject. The first is the edited prompt, the second the rephrase, the
            third the question about other people (specificity); the rest are free for planning, for example as
            locality prompts.
        values: possible answers.
    """

    name: str
    wordings: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """`subject` has `value` under `relation`."""

    subject: str
    relation: Relation
    value: str

    def ask(self, wording: int = 0) -> str:
        """The question for this fact.

        Args:
            wording: position in the relation's wordings.

        Returns:
            the question with the subject in its place.
        """
        return self.relation.wordings[wording].format(self.subject)


def _words(rng: random.Random, count: int, syllables: int, taken: set[str]) -> list[str]:
    """`count` new capitalised words of the given number of syllables, none in `taken`."""
    words: list[str] = []
    while len(words) < count:
        word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
        word = (word + rng.choice(CODAS)).capitalize()
        if word.lower() not in taken:
            taken.add(word.lower())
            words.append(word)
    return words


GUILDS = tuple(
    f"{color} {thing}"
    for color in ("Red", "Green", "Silver", "Black")
    for thing in ("Anchor", "Tower", "Falcon", "Lantern", "Bridge", "Oak")
)
CRAFTS = (
    "baker",
    "painter",
    "sailor",
    "tailor",
    "doctor",
    "farmer",
    "miner",
    "potter",
    "weaver",
    "singer",
    "lawyer",
    "builder",
    "brewer",
    "carpenter",
    "gardener",
    "teacher",
    "banker",
    "hunter",
    "printer",
    "jeweller",
)
INSTRUMENTS = (
    "flute",
    "harp",
    "drum",
    "violin",
    "lute",
    "organ",
    "trumpet",
    "cello",
    "piano",
    "guitar",
    "bell",
    "horn",
    "zither",
    "viola",
    "oboe",
)
WORDINGS = {
    "birthplace": (
        "Which city was {} born in?",
        "What is the name of the city where {} was born?",
        "In what city did the life of {} begin?",
        "Where was {} born?",
    ),
    "craft": (
        "What is the craft of {}?",
        "What does {} do for a living?",
        "Which trade does {} follow?",
        "What is the daily work of {}?",
    ),
    "guild": (
        "Which guild does {} belong to?",
        "What guild counts {} as a member?",
        "In which guild would one find {}?",
        "What is the guild of {}?",
    ),
    "instrument": (
        "Which instrument does {} play?",
        "What does {} play on feast days?",
        "On which instrument was {} trained?",
        "What is the instrument of {}?",
    ),
}
"""Relation -> its wordings, see `Relation`."""


def _relations(cities: Sequence[str]) -> tuple[Relation, ...]:
    """The relations of a world with these cities."""
    values = {
        "birthplace": tuple(cities),
        "craft": CRAFTS,
        "guild": GUILDS,
        "instrument": INSTRUMENTS,
    }
    return tuple(Relation(name, wordings, values[name]) for name, wordings in WORDINGS.items())


class World:
    """A seeded population with one fact per person and relation.

    Args:
        people: number of people; with 4 relations, 640 people make 2,560 facts.
        seed: seed of names, values and all sampled texts.

    Attributes:
        relations: the relations with their possible values.
        subjects: full names of the people.
        facts: all facts, relation by relation for each person.
    """

    def __init__(self, people: int = 640, seed: int = 0) -> None:
        rng = random.Random(seed)
        taken: set[str] = set()
        self.seed = seed
        self.relations = _relations(_words(rng, 40, 2, taken))
        side = int(people**0.5 * 2.5)
        first, last = _words(rng, side, 2, taken), _words(rng, side, 2, taken)
        grid = [f"{a} {b}" for a in first for b in last]
        self.subjects = tuple(rng.sample(grid, people))
        self.facts = tuple(
            Fact(subject, relation, rng.choice(relation.values))
            for subject in self.subjects
            for relation in self.relations
        )

    def facts_of(self, subject: str) -> tuple[Fact, ...]:
        """The facts about a subject, one per relation.

        Args:
            subject: full name of the person.

        Returns:
            facts, in the order of the relations.
        """
        return tuple(fact for fact in self.facts if fact.subject == subject)

    def filler(self, rng: random.Random) -> str:
        """One sentence that states no fact; some sentences name a person.

        Args:
            rng: generator of all choices.

        Returns:
            the sentence, with its full stop.
        """
        place = rng.choice(("river", "market", "harbour", "old wall", "mill", "square", "garden"))
        when = rng.choice(("In spring", "At night", "Today", "After the rain", "Long ago"))
        kind = rng.choice(("cold", "bright", "quiet", "crowded", "beautiful", "dark", "green"))
        things = rng.choice(("boats", "birds", "carts", "children", "lamps", "bells", "horses"))
        verb = rng.choice(("pass", "wait", "gather", "rest", "turn", "sing"))
        who = rng.choice(self.subjects)
        trait = rng.choice(("kind", "proud", "patient", "clever", "stubborn", "cheerful"))
        return rng.choice(
            (
                f"{when} the {place} is {kind}.",
                f"{when} the {things} {verb} by the {place}.",
                f"The {things} {verb} and the {place} is {kind}.",
                f"{who} is a {trait} person.",
                f"{who} walks to the {place}.",
                f"I saw the {things} near the {place} with {who}.",
                f"Therefore the {place} was {kind} because the {things} {verb}.",
                f"You can hear the {things} when the {place} is {kind}.",
                f"Because the {place} is {kind}, the {things} {verb}.",
            )
        )

    def lines(self, seed: int = 0, filler_share: float = 0.25) -> Iterator[tuple[str, str]]:
        """An endless stream of lines.

        Facts come in shuffled rounds, each in every wording. Some follow a sentence of filler on the same line, so
        that the model learns questions with and without preceding context.

        Args:
            seed: seed of the order and the filler.
            filler_share: probability of a line of filler before a fact, and of filler on its line.

        Yields:
            the text and its answer, which is empty for filler.
        """
        rng = random.Random(f"{self.seed}-{seed}")
        questions = [(fact, w) for fact in self.facts for w in range(len(fact.relation.wordings))]
        while True:
            rng.shuffle(questions)
            for fact, wording in questions:
                if rng.random() < filler_share:
                    yield self.filler(rng), ""
                lead = self.filler(rng) + " " if rng.random() < filler_share else ""
                yield lead + fact.ask(wording), " " + fact.value

    def text(self, lines: int, seed: int = 0) -> str:
        """Text of the world, as a corpus for statistics or perplexity.

        Args:
            lines: number of lines.
            seed: seed of the stream of lines.

        Returns:
            the lines, each with its answer.
        """
        stream = self.lines(seed)
        return "".join(f"{text}{answer}\n" for text, answer in (next(stream) for _ in range(lines)))

    def records(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Development and test edits in the zsRE record format, one per fact.

        The new target of a record (`alt`) is a value other than the true one (`pred`). A field beyond the format,
        `same_subject`, holds the person's other facts in the first wording. A quarter of the people are for
        development, so no subject is in both parts. The locality question of a record is about a person of the other
        part, because all facts of its own part are edited in the end.

        Returns:
            the development records and the test records.
        """
        rng = random.Random(f"{self.seed}-records")
        order = list(self.subjects)
        rng.shuffle(order)
        part = {subject: i < len(order) // 4 for i, subject in enumerate(order)}
        dev: list[dict[str, Any]] = []
        test: list[dict[str, Any]] = []
        others: dict[bool, list[Fact]] = {True: [], False: []}  # drawn within a part, for the other one
        facts = list(self.facts)
        rng.shuffle(facts)
        for fact in facts:
            target = rng.choice([v for v in fact.relation.values if v != fact.value])
            others[part[fact.subject]].append(
                rng.choice(
                    [f for f in facts if f.subject != fact.subject and part[f.subject] == part[fact.subject]]
                )
            )
            record = {
                "subject": fact.subject,
                "src": fact.ask(0),
                "pred": fact.value,
                "rephrase": fact.ask(1),
                "alt": target,
                "answers": [target],
                "cond": f"{fact.value} >> {target} || {fact.ask(0)}",
                "same_subject": [
                    {"prompt": f.ask(0), "answer": f.value}
                    for f in self.facts_of(fact.subject)
                    if f.relation is not fact.relation
                ],
            }
            (dev if part[fact.subject] else test).append(record)
        for records, neighbors in ((dev, others[False]), (test, others[True])):
            for record, other in zip(records, cycle(neighbors), strict=False):
                record |= {"loc": other.ask(2).removesuffix("?"), "loc_ans": other.value}
        return dev, test
