"""Turns means into documents and situations into queries: sentence shapes only, the phrases are in the tables."""

from __future__ import annotations

import random
import re

from .rules import Means, World

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
MAX_QUERY_WORDS = 34


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
    """Words one document: what the means does, then its conditions.

    Pardons follow the exclusions they soften, so they are put last.
    """
    names = sorted(means.properties, key=lambda name: (name.startswith("pardon"), name == "apart"))
    favours = [n for n in names if set(world.properties[n].effects.values()) == {"P"}]
    limits = [n for n in names if n not in favours]
    good = [deck.deal(n, world.properties[n].wordings) for n in favours]
    bad = [deck.deal(n, world.properties[n].wordings) for n in limits]
    clauses: list[str] = []
    if means.second:
        second = deck.deal("second", world.properties["second"].wordings)
        if good:
            clauses.append(f"{second}, {rng.choice(['though', 'but', 'yet'])} {good.pop(0)}")
        else:
            clauses.append(second)
    clauses += good
    text = means.function
    if not clauses and bad and rng.random() < 0.5:
        text += rng.choice([", but ", ", though ", "; "]) + bad.pop(0)
    elif clauses and rng.random() < 0.4:
        text += rng.choice(["; ", ": "]) + clauses.pop(0)
    sentences = [upper(clause) for clause in clauses]
    if len(bad) >= 2 and "," not in bad[0] + bad[1]:
        join = "; " if limits[-1].startswith("pardon") and len(bad) == 2 else rng.choice([" and ", ", and ", "; "])
        sentences.append(upper(bad[0]) + join + bad[1])
        bad = bad[2:]
    sentences += [upper(clause) for clause in bad]
    return " ".join([stop(text), *map(stop, sentences)])


def _sentences(situation: str, facts: list[str], link: str, rng: random.Random) -> list[str]:
    """Weaves a situation and facts into sentences, in one of several orders."""
    plain = [fact for fact in facts if "," not in fact and " and " not in fact]
    shape = rng.randrange(8)
    if shape == 0 and "," not in situation and plain:
        rest = [fact for fact in facts if fact != plain[0]]
        return [f"{upper(plain[0])}, and {lower(situation)}", *map(upper, rest)]
    if shape == 1 and "," not in situation and plain:
        rest = [fact for fact in facts if fact != plain[0]]
        return [f"{situation}, and {plain[0]}", *map(upper, rest)]
    if shape == 2 and len(plain) >= 2 and len(plain) == len(facts):
        return [f"{upper(facts[0])}, {facts[1]}, and {lower(situation)}", *map(upper, facts[2:])]
    if shape == 3 and len(plain) >= 2 and len(plain) == len(facts):
        return [situation, f"{upper(facts[0])} and {facts[1]}", *map(upper, facts[2:])]
    if shape == 4:
        return [*map(upper, facts), situation]
    if shape == 5:
        return [upper(facts[0]), situation, *(f"{link} {fact}" for fact in facts[1:2]), *map(upper, facts[2:])]
    if shape == 6 and plain:
        rest = [fact for fact in facts if fact != plain[0]]
        return [f"{situation} ({plain[0]})", *map(upper, rest)]
    return [situation, f"{link} {facts[0]}", *map(upper, facts[1:])]


def query_text(situation: str, facts: list[str], world: World, rng: random.Random) -> str:
    """Words one query from a situation and one to four facts; greetings, asides and questions come and go.

    Asides and other extras are left out when the query would grow beyond `MAX_QUERY_WORDS`.
    """
    situation = pick(situation, rng)
    facts = [pick(fact, rng) for fact in facts]
    rng.shuffle(facts)
    core = _sentences(situation, facts, rng.choice(world.talk["link"]), rng)
    words = sum(len(sentence.split()) for sentence in core)
    if rng.random() < 0.35 and words < MAX_QUERY_WORDS - 8:
        core.insert(rng.randrange(len(core) + 1), rng.choice(world.talk["aside"]))
        words += 8
    if rng.random() < 0.2 and words < MAX_QUERY_WORDS - 3:
        core.insert(0, rng.choice(world.talk["opener"]))
    if rng.random() < 0.5 and words < MAX_QUERY_WORDS - 5:
        core.append(rng.choice(world.talk["closer"]))
    return " ".join(map(stop, core))
