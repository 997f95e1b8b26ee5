"""The made-up world of the demo models: people, their facts, and text that speaks of them.

A demo model is trained on text from this world, so what it knows is known exactly: every fact,
every wording it was asked in, and which wordings no editing method ever plans with. Names are
drawn from a grid of first and last names, so neither token of a name identifies a person alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

ONSETS = ("b", "br", "d", "dr", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "tr", "v", "z")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("", "l", "n", "r", "s", "k")


@dataclass(frozen=True)
class Relation:
    """One kind of fact and the ways of asking for it.

    `wordings[0]` is what an edit is planned with, `wordings[1]` is the rephrase that only the
    evaluation sees, `wordings[2]` asks about other people (specificity), the rest are free for
    planning, for example as locality prompts.
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


def _relations(rng: random.Random, taken: set[str]) -> tuple[Relation, ...]:
    cities = _words(rng, 40, 2, taken)
    guilds = [
        f"{colour} {thing}"
        for colour in ("Red", "Green", "Silver", "Black")
        for thing in ("Anchor", "Tower", "Falcon", "Lantern", "Bridge", "Oak")
    ]
    crafts = [
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
    ]
    instruments = [
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
    ]
    return (
        Relation(
            "birthplace",
            (
                "Which city was {} born in?",
                "What is the name of the city where {} was born?",
                "In what city did the life of {} begin?",
                "Where was {} born?",
            ),
            tuple(cities),
        ),
        Relation(
            "craft",
            (
                "What is the craft of {}?",
                "What does {} do for a living?",
                "Which trade does {} follow?",
                "What is the daily work of {}?",
            ),
            tuple(crafts),
        ),
        Relation(
            "guild",
            (
                "Which guild does {} belong to?",
                "What guild counts {} as a member?",
                "In which guild would one find {}?",
                "What is the guild of {}?",
            ),
            tuple(guilds),
        ),
        Relation(
            "instrument",
            (
                "Which instrument does {} play?",
                "What does {} play on feast days?",
                "On which instrument was {} trained?",
                "What is the instrument of {}?",
            ),
            tuple(instruments),
        ),
    )


class World:
    """A seeded population with one fact per person and relation.

    Args:
        people: number of people; with 4 relations, 640 people make 2,560 facts.
        seed: decides names, values and every sampled text.
    """

    def __init__(self, people: int = 640, seed: int = 0) -> None:
        rng = random.Random(seed)
        taken: set[str] = set()
        self.seed = seed
        self.relations = _relations(rng, taken)
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
        return tuple(fact for fact in self.facts if fact.subject == subject)

    def filler(self, rng: random.Random) -> str:
        """One sentence that states no fact; some of them name a person."""
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
        """An endless stream of `(text, answer)`; filler has an empty answer.

        Facts come in shuffled rounds, each in every wording, and some follow a sentence of filler
        on the same line, so that a question is understood with and without context before it.
        """
        rng = random.Random(f"{self.seed}-{seed}")
        asked = [(fact, w) for fact in self.facts for w in range(len(fact.relation.wordings))]
        while True:
            rng.shuffle(asked)
            for fact, wording in asked:
                if rng.random() < filler_share:
                    yield self.filler(rng), ""
                lead = self.filler(rng) + " " if rng.random() < filler_share else ""
                yield lead + fact.ask(wording), " " + fact.value

    def text(self, lines: int, seed: int = 0) -> str:
        """`lines` lines of the world's text, as a corpus for statistics or perplexity."""
        stream = self.lines(seed)
        return "".join(f"{text}{answer}\n" for text, answer in (next(stream) for _ in range(lines)))

    def records(self) -> tuple[list[dict], list[dict]]:
        """Development and test edits in the zsRE record format, one per fact.

        A record asks for a value other than the true one (`pred`). Extra fields, ignored by other
        readers of the format: `same_subject`, the person's other facts in the planning wording.
        People are split, a quarter for development, so no subject is in both parts. What a record asks
        about another person (specificity) is about one of the *other* part: facts of its own part are
        edited too, in the end all of them, and an answer that changed there might be one that should.
        """
        rng = random.Random(f"{self.seed}-records")
        order = list(self.subjects)
        rng.shuffle(order)
        part = {subject: i < len(order) // 4 for i, subject in enumerate(order)}
        dev: list[dict] = []
        test: list[dict] = []
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
        for records, neighbours in ((dev, others[False]), (test, others[True])):
            for record, other in zip(records, cycle(neighbours), strict=False):
                record |= {"loc": other.ask(2).removesuffix("?"), "loc_ans": other.value}
        return dev, test
