"""Turns means into documents and situations into queries: sentence shapes only, the phrases are in the tables."""

from __future__ import annotations

import random
import re

from .rules import PARDONABLE, Means, World

# Words that keep their capital when a sentence moves into the middle of another.
NAMES = (
    "I",
    "I'm",
    "Aunt",
    "Uncle",
    "Grandma",
    "Mr",
    "Mrs",
    "Leo",
    "Mia",
    "Lena",
    "Bello",
    "Minka",
    "Paul",
    "Tim",
    "Tom",
)
NAMES += ("Mum", "Mother", "Italian", "Sunday", "Nora", "Kip")
MAX_QUERY_WORDS = 20  # asides, greetings and questions are left out beyond
ASIDE, OPENER, CLOSER = 0.03, 0.05, 0.1
ANYWHERE = tuple(range(8))  # sentence shapes of `_sentences`
AFTER = (1, 3, 6, 7)  # those in which facts follow the situation at once
RESERVED_SHAPES = {False: (8, 9, 10), True: (9, 10)}  # never in train


def pick(text: str, rng: random.Random) -> str:
    """Chooses one alternative of every `[a/b]`."""
    return re.sub(r"\[([^]]*)\]", lambda match: rng.choice(match.group(1).split("/")), text)


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def lower(text: str) -> str:
    return text if re.split(r"[\s,']", text)[0] in NAMES else text[:1].lower() + text[1:]


def stop(text: str) -> str:
    return text if text[-1] in ".?!" else text + "."


class Deck:
    """Deals the wordings of a table evenly: each is used once before any is used again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left: dict[str, list[str]] = {}

    def deal(self, key: str, wordings: tuple[str, ...] | list[str]) -> str:
        if not self._left.get(key):
            self._left[key] = self._rng.sample(list(wordings), len(wordings))
        return self._left[key].pop()


def document_text(means: Means, world: World, deck: Deck, rng: random.Random) -> str:
    """Words one document in one or two sentences: what the means does, then its conditions.

    A pardon stands right behind the annoyance that it softens.
    """
    names = sorted(means.properties, key=lambda name: (name.startswith("pardon"), name in PARDONABLE))
    favours = [n for n in names if set(world.properties[n].effects.values()) == {"P"}]
    pardons = [n for n in names if n.startswith("pardon")]
    limits = [n for n in names if n not in favours and n not in pardons]
    good = listing([deck.deal(n, world.properties[n].wordings) for n in favours])
    bad = listing([deck.deal(n, world.properties[n].wordings) for n in limits])
    if pardons:
        bad += ", " + deck.deal(pardons[0], world.properties[pardons[0]].wordings)
    if not means.second:
        join = rng.choice(["; it ", ". It ", ". It "])
        return stop(f"{means.function}{join}{bad}")
    second = deck.deal("second", world.properties["second"].wordings)
    if good and bad:
        bad = rng.choice([". It ", "; it "]) + bad
        return stop(f"{means.function}. {upper(second)}, {rng.choice(['but', 'though', 'yet'])} it {good}{bad}")
    if good:
        return stop(f"{means.function}. {upper(second)}, {rng.choice(['but', 'though', 'yet'])} it {good}")
    return stop(f"{means.function}. {upper(second)}, and it {bad}")


def listing(parts: list[str]) -> str:
    """Joins predicates of one subject; a comma keeps apart those that contain an "and" themselves."""
    if len(parts) < 2:
        return "".join(parts)
    parts = sorted(parts, key=lambda part: " and " in part) if not any("," in part for part in parts) else parts
    comma = "," if any(" and " in part for part in parts) else ""
    return f"{', '.join(parts[:-1])}{comma} and {parts[-1]}"


def _sentences(situation: str, facts: list[str], link: str, shapes: tuple[int, ...], rng: random.Random) -> list[str]:
    """Weaves a situation and facts into sentences, in one of several orders."""
    plain = [fact for fact in facts if "," not in fact and " and " not in fact]
    shape = rng.choice(shapes)
    simple = "," not in situation and " and " not in situation
    rest = [fact for fact in facts if fact != facts[0]]
    if shape == 0 and simple and facts[0] in plain:
        return [f"{upper(facts[0])}, and {lower(situation)}", *map(upper, rest)]
    if shape == 1 and simple and facts[0] in plain:
        return [f"{situation}, and {facts[0]}", *map(upper, rest)]
    if shape == 2 and len(plain) == len(facts) == 2:
        return [f"{upper(facts[0])}, {facts[1]}, and {lower(situation)}"]
    if shape == 3 and len(plain) == len(facts) == 2:
        return [situation, f"{upper(facts[0])} and {facts[1]}"]
    if shape == 4:
        return [*map(upper, facts), situation]
    if shape == 5:
        return [upper(facts[0]), situation, *(f"{link} {fact}" for fact in rest[:1]), *map(upper, rest[1:])]
    if shape == 6 and facts[0] in plain:
        return [f"{situation} ({facts[0]})", *map(upper, rest)]
    if shape == 8:
        return [upper(facts[0]), f"And now {lower(situation)}", *map(upper, rest)]
    if shape == 9 and simple and len(plain) == len(facts) == 2:
        return [f"{situation}, {facts[0]}, and {facts[1]}"]
    if shape == 10 and facts[0] in plain:
        return [f"The trouble is: {lower(situation)}", f"And {facts[0]}", *map(upper, rest)]
    return [situation, f"{link} {facts[0]}", *map(upper, rest)]


def query_text(
    situation: str, facts: list[str], about_it: list[str], new: bool, world: World, rng: random.Random
) -> str:
    """Words one query from a situation and one to four facts; greetings, asides and questions come and go.

    Args:
        situation: What is the matter.
        facts: What else holds.
        about_it: Those facts that speak of "it" or "the thing": they follow the situation at once.
        new: Whether sentence shapes that are reserved for dev and test may be used.
        world: All tables.
        rng: Source of chance.
    """
    situation = pick(situation, rng)
    rng.shuffle(facts)
    facts = [pick(fact, rng) for fact in (*about_it, *facts)]
    shapes = AFTER if about_it else ANYWHERE
    core = _sentences(
        situation, facts, rng.choice(world.talk["link"]), shapes + RESERVED_SHAPES[bool(about_it)] * new, rng
    )
    words = sum(len(sentence.split()) for sentence in core)
    if rng.random() < ASIDE and words <= MAX_QUERY_WORDS - 8:
        core.insert(rng.choice([0, len(core)]), rng.choice(world.talk["aside"]))
        words += 8
    if rng.random() < OPENER and words <= MAX_QUERY_WORDS - 3:
        core.insert(0, rng.choice(world.talk["opener"]))
        words += 3
    if rng.random() < CLOSER and words <= MAX_QUERY_WORDS - 4:
        core.append(rng.choice(world.talk["closer"]))
    return " ".join(map(stop, core))
