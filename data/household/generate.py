"""Writes the household set in BEIR layout: `python data/household/generate.py [--out folder]`.

Standard library only and one seed: the same tables give the same bytes on every machine. README.md says what is in it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from world.rules import PARDONABLE, Means, Need, World, grade, load_world
from world.wording import Deck, document_text, query_text

SEED = 2604
COUNTS = {"train": 4500, "dev": 250, "test": 300}
NUM_FACTS = {1: 0.22, 2: 0.78}  # how many circumstances hold in a query
NEUTRAL_FACT = 0.03  # chance that one more circumstance is added which changes nothing
DECOY_FACT = 0.04  # chance that a circumstance is mentioned only to be cancelled
MAX_FACTS = 3
MAX_WORDS = 32
ALLOWED = (  # number of documents of the need with grade 2, 1 and 0: first choice, and for needs with few such cases
    (range(1, 4), range(0, 3), range(5, 10)),
    (range(1, 4), range(0, 4), range(4, 10)),
)
ENOUGH = 25  # so many cases are not few
TRIES = 20  # draws of a query before the next need has its turn
CANDIDATES = 40  # so many sets of circumstances are drawn, and the hardest is taken
COMMON = 1.5  # and as that much easier for the share that its circumstances have among all used so far
REPEAT = 0.04  # a set of circumstances counts as that much easier each time it has been used for the need
RESERVED_SITUATIONS = {"dev": 1, "test": 2}  # last wordings of each situation list
RESERVED_WORDINGS = {"dev": 1, "test": 2}  # last wordings of each circumstance
RESERVED_PAIRS = 0.08  # share of need x circumstance pairs that train never sees
NEW_SITUATION = 0.2  # share of dev and test queries with a reserved situation wording
NEW_WORDING = 0.15  # chance that a circumstance of a dev or test query has a reserved wording
NEW_PAIR = 0.3  # share of dev and test queries with a reserved pair
HELD_OUT_PER_NEED = 2  # documents per need without any training judgement
FOREIGN = 2.0  # how much words that no judged document of the need has speak against holding a document out
ALONE = 0.2  # share of the possible queries of a need that only they fit fully
ALL_HELD_OUT = 0.27  # share of dev and test queries whose fully fitting documents are all held out
PARDON = 0.45  # chance that a document with annoying exclusions pardons them for a circumstance
PARDONS = {  # and what makes a pardon senseless
    "pardonpower": {"plug"},
    "pardonshops": {"buy"},
}
MAX_CONDITIONS = 2  # of a document that may get a pardon


@dataclass(frozen=True)
class Document:
    doc_id: str
    means: Means
    text: str


@dataclass(frozen=True)
class Query:
    query_id: str
    need: str
    circumstances: frozenset[str]
    text: str
    grades: dict[str, int]


def add_interplay(means: Means, rng: random.Random) -> Means:
    """Adds conditions that act only together with others: the pardons."""
    names = set(means.properties)
    # With two annoyances nobody could tell which of them is pardoned.
    if means.second or len(PARDONABLE & names) != 1 or len(names) > MAX_CONDITIONS or rng.random() >= PARDON:
        return means
    choices = [name for name, clash in PARDONS.items() if not clash & names]
    return replace(means, properties=(*means.properties, rng.choice(choices))) if choices else means


def make_documents(world: World, rng: random.Random) -> list[Document]:
    """Words every means; identifiers are dealt at random, so that neighbours in the corpus have nothing in common."""
    deck = Deck(rng)
    means = [add_interplay(item, rng) for need in world.needs.values() for item in need.means]
    texts = [document_text(item, world, deck, rng) for item in means]
    order = rng.sample(range(len(means)), len(means))
    return [Document(f"d{rank + 1:03d}", means[index], texts[index]) for rank, index in enumerate(order)]


class Sampler:
    """Draws queries of one split after another and keeps them apart."""

    def __init__(self, world: World, documents: list[Document], rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self._graded: dict[tuple[str, frozenset[str]], dict[str, int]] = {}
        self.documents: dict[str, list[Document]] = {}
        for document in documents:
            self.documents.setdefault(document.means.need, []).append(document)
        self.needs = [world.needs[key] for key in self.documents if key in world.needs]
        self.needs.sort(key=lambda need: need.key)
        self.relevant = {need.key: self._relevant(need) for need in self.needs}
        self.reserved = {need.key: self._reserve_pairs(need) for need in self.needs}
        self.usual = {need.key: self._usual_grades(need) for need in self.needs}  # sums over cases and drawn queries
        self.fitting = {(need.key, size): self._fitting(need, size) for need in self.needs for size in NUM_FACTS}
        self.held_out = {doc_id for need in self.needs for doc_id in self._hold_out(need)}
        self.used: Counter[str] = Counter()
        self.times: Counter[tuple[str, frozenset[str]]] = Counter()
        self.seen_texts: set[str] = set()
        self.train_combinations: set[tuple[str, frozenset[str]]] = set()

    def grades(self, need: Need, circumstances: Iterable[str]) -> dict[str, int]:
        """Grades of the documents of a need, in the order of its table."""
        case = (need.key, frozenset(circumstances))
        if case not in self._graded:
            documents = self.documents[need.key]
            self._graded[case] = {d.doc_id: grade(d.means, case[1], self.world.properties) for d in documents}
        return self._graded[case]

    def _allowed(self, need: Need) -> list[str]:
        table = self.world.circumstances.values()
        return [c.key for c in table if c.key not in need.excluded and (not c.surface or c.key in need.surfaces)]

    def _relevant(self, need: Need) -> dict[str, int]:
        """Circumstances that change a grade for this need, with the number of documents that they change."""
        plain = self.grades(need, ())
        changed = {}
        for key in self._allowed(need):
            grades = self.grades(need, (key,))
            changed[key] = sum(grades[doc_id] != plain[doc_id] for doc_id in plain)
        return {key: count for key, count in changed.items() if count}

    def _reserve_pairs(self, need: Need) -> frozenset[str]:
        keys = sorted(self.relevant[need.key])
        return frozenset(self.rng.sample(keys, round(len(keys) * RESERVED_PAIRS)))

    def _compatible(self, keys: Iterable[str]) -> bool:
        table = self.world.circumstances
        pairs = combinations(keys, 2)
        return not any(a == b or b in table[a].conflicts or a in table[b].conflicts for a, b in pairs)

    def _groups(self, need: Need, size: int) -> list[tuple[str, ...]]:
        return [group for group in combinations(sorted(self.relevant[need.key]), size) if self._compatible(group)]

    def _cases(self, need: Need, sizes: tuple[int, ...]) -> list[dict[str, int]]:
        """Grades under every combination of so many relevant circumstances."""
        return [self.grades(need, group) for size in sizes for group in self._groups(need, size)]

    def _fitting(self, need: Need, size: int) -> list[tuple[str, ...]]:
        """Sets of circumstances under which enough, and not too many, documents of the need remain."""
        groups: list[tuple[str, ...]] = []
        for allowed in ALLOWED:
            if len(groups) < ENOUGH:
                groups = [group for group in self._groups(need, size) if self._fits(need, group, allowed)]
        return groups

    def _fits(self, need: Need, group: tuple[str, ...], allowed: tuple[range, ...]) -> bool:
        values = list(self.grades(need, group).values())
        return all(values.count(value) in counts for value, counts in zip((2, 1, 0), allowed, strict=True))

    def _usual_grades(self, need: Need) -> dict[str, float]:
        cases = self._cases(need, (1, 2))
        return {d.doc_id: 5 * sum(case[d.doc_id] for case in cases) / len(cases) for d in self.documents[need.key]}

    def _ease(self, need: Need, chosen: tuple[str, ...]) -> float:
        """The nDCG of knowing the need and the mean grades of its documents, but nothing of the circumstances."""
        usual, grades = self.usual[need.key], self.grades(need, chosen)
        found = gain([grades[doc_id] for doc_id in sorted(usual, key=lambda d: (-usual[d], d))])
        ease = found / gain(sorted(grades.values(), reverse=True))
        common = sum(self.used[key] for key in chosen) / len(chosen) / (1 + self.used.total())
        return ease + REPEAT * self.times[need.key, frozenset(chosen)] + COMMON * common

    def _hold_out(self, need: Need) -> tuple[str, ...]:
        """Chooses documents that are now and then the only fully fitting ones, else nobody would miss them."""
        ids = [document.doc_id for document in self.documents[need.key]]
        cases = [self.grades(need, group) for size in NUM_FACTS for group in self.fitting[need.key, size]]
        fitting = [{d for d, g in case.items() if g == 2} for case in cases]
        scored = []
        for group in combinations(ids, HELD_OUT_PER_NEED):
            alone = sum(docs <= set(group) for docs in fitting) / len(fitting)
            scored.append((abs(alone - ALONE) + FOREIGN * self._foreign(need, group), self.rng.random(), group))
        return min(scored)[2]

    def _foreign(self, need: Need, held_out: tuple[str, ...]) -> float:
        """Share of the words for what these documents do that no other document of the need uses for itself.

        A document that arrives later is worded like those before it; one in words never seen could only be guessed.
        """
        words = {d.doc_id: set(d.means.function.lower().replace(",", "").split()) for d in self.documents[need.key]}
        judged = set().union(*(found for doc_id, found in words.items() if doc_id not in held_out))
        own = set().union(*(words[doc_id] for doc_id in held_out))
        return len(own - judged) / len(own)

    def _choose(self, need: Need, split: str, all_held_out: bool) -> tuple[str, ...] | None:
        """Chooses circumstances: the hardest of some drawn ones, repeating none too often."""
        reserved = self.reserved[need.key]
        size = self.rng.choices(list(NUM_FACTS), list(NUM_FACTS.values()))[0]
        groups = self.fitting[need.key, size]
        if split == "train":
            groups = [group for group in groups if not reserved & set(group)]
        elif self.rng.random() < NEW_PAIR:
            groups = [group for group in groups if reserved & set(group)]
        groups = [group for group in groups if self._acceptable(need, group, split, all_held_out)]
        if not groups:
            return None
        drawn = self.rng.sample(groups, min(CANDIDATES, len(groups)))
        return min(drawn, key=lambda group: self._ease(need, group))

    def _acceptable(self, need: Need, group: tuple[str, ...], split: str, all_held_out: bool) -> bool:
        best = {doc_id for doc_id, value in self.grades(need, group).items() if value == 2}
        if split == "train":
            return not best <= self.held_out
        return all_held_out == (best <= self.held_out) and (need.key, frozenset(group)) not in self.train_combinations

    def _neutral(self, need: Need, chosen: list[str], banned: frozenset[str]) -> list[str]:
        plain = self.grades(need, chosen)
        keys = [key for key in self._allowed(need) if key not in banned and self._compatible([*chosen, key])]
        keys = [key for key in keys if self.grades(need, [*chosen, key]) == plain]
        return [self.rng.choice(keys)] if keys else []

    def _facts(self, keys: list[str], split: str) -> list[str]:
        facts = []
        for key in keys:
            wordings = list(self.world.circumstances[key].wordings)
            facts.append(self._brief(portion(wordings, split, RESERVED_WORDINGS, NEW_WORDING, self.rng)))
        return facts

    def _brief(self, wordings: list[str]) -> str:
        """Chooses a wording, short ones more often: people in trouble are brief."""
        return self.rng.choices(wordings, [1 / len(wording.split()) for wording in wordings])[0]

    def _decoy(self, need: Need, keys: list[str]) -> list[str]:
        table = self.world.circumstances
        family = {"sleep", "toddler", "pet"}  # the same baby cannot be away and in the house
        clash = {other for key in keys for other in table[key].conflicts | {key}} | (
            family if family & set(keys) else set()
        )
        options = [text for key in self._allowed(need) if key not in clash for text in table[key].decoys]
        return [self.rng.choice(options)] if options else []

    def draw(self, need: Need, split: str, all_held_out: bool) -> Query | None:
        """Draws one query, or none when the draw breaks a rule of the split."""
        rng = self.rng
        group = self._choose(need, split, all_held_out)
        if group is None:
            return None
        banned = self.reserved[need.key] if split == "train" else frozenset()
        chosen = list(group)
        if rng.random() < NEUTRAL_FACT and len(chosen) < MAX_FACTS:
            chosen += self._neutral(need, chosen, banned)
        combination = (need.key, frozenset(chosen))
        if split != "train" and combination in self.train_combinations:
            return None
        about_it = self._facts([key for key in chosen if self.world.circumstances[key].surface], split)
        facts = self._facts([key for key in chosen if not self.world.circumstances[key].surface], split)
        if rng.random() < DECOY_FACT and len(chosen) < MAX_FACTS:
            facts += self._decoy(need, chosen)
        situation = self._brief(portion(need.situations, split, RESERVED_SITUATIONS, NEW_SITUATION, rng))
        text = query_text(situation, facts, about_it, split != "train", self.world, rng)
        if text in self.seen_texts or len(text.split()) > MAX_WORDS:
            return None
        self.seen_texts.add(text)
        if split == "train":
            self.train_combinations.add(combination)
        grades = {doc_id: value for doc_id, value in self.grades(need, chosen).items() if value}
        if split == "train":
            grades = {doc_id: value for doc_id, value in grades.items() if doc_id not in self.held_out}
        return Query("", need.key, frozenset(chosen), text, grades)

    def split(self, name: str, count: int) -> list[Query]:
        """Draws `count` queries, every need in its turn."""
        queries: list[Query] = []
        quota = round(ALL_HELD_OUT * count) if name != "train" else 0
        queue: list[Need] = []
        while len(queries) < count:
            if not queue:
                queue = self.rng.sample(self.needs, len(self.needs))
            need = queue.pop()
            query = next(filter(None, (self.draw(need, name, len(queries) < quota) for _ in range(TRIES))), None)
            if query is None:
                continue
            queries.append(query)
            self.times[need.key, query.circumstances] += 1
            self.used.update(query.circumstances)
            if name == "train":
                for doc_id, value in self.grades(need, query.circumstances).items():
                    self.usual[need.key][doc_id] += value
        return queries


def gain(values: list[int]) -> float:
    """Discounted cumulative gain of grades in ranked order."""
    return sum(value / math.log2(rank + 2) for rank, value in enumerate(values))


def portion(items: list[str], split: str, sizes: dict[str, int], new: float, rng: random.Random) -> list[str]:
    """The part of a list of wordings that a split may use: the last ones are reserved for dev and test.

    Dev and test mix their own part (with chance `new`) with the wordings of train.
    """
    dev, test = sizes["dev"], sizes["test"]
    parts = {"train": items[: -dev - test], "dev": items[-dev - test : -test], "test": items[-test:]}
    return parts[split] if split == "train" or rng.random() < new else parts["train"]


def number(splits: dict[str, list[Query]], rng: random.Random) -> dict[str, list[Query]]:
    """Deals query identifiers at random over all splits."""
    total = sum(map(len, splits.values()))
    ids = iter(rng.sample(range(1, total + 1), total))
    named = {name: [replace(query, query_id=f"q{next(ids):04d}") for query in qs] for name, qs in splits.items()}
    return {name: sorted(queries, key=lambda query: query.query_id) for name, queries in named.items()}


def build() -> tuple[list[Document], dict[str, list[Query]], Sampler]:
    """Makes the whole set in memory."""
    world = load_world()
    rng = random.Random(SEED)
    documents = make_documents(world, rng)
    sampler = Sampler(world, documents, rng)
    # Train comes first: dev and test are chosen to hold combinations that it lacks.
    splits = {name: sampler.split(name, COUNTS[name]) for name in ("train", "dev", "test")}
    return documents, number(splits, rng), sampler


def write(out: Path) -> None:
    """Writes corpus, queries and qrels below `out`."""
    documents, splits, _ = build()
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": d.doc_id, "title": d.means.title, "text": d.text} for d in documents]
    write_lines(out / "corpus.jsonl", rows, lambda row: json.dumps(row, ensure_ascii=False))
    queries = sorted((q for qs in splits.values() for q in qs), key=lambda query: query.query_id)
    rows = [{"_id": query.query_id, "text": query.text} for query in queries]
    write_lines(out / "queries.jsonl", rows, lambda row: json.dumps(row, ensure_ascii=False))
    for name, part in splits.items():
        lines = [f"{q.query_id}\t{d}\t{value}" for q in part for d, value in sorted(q.grades.items())]
        write_lines(out / "qrels" / f"{name}.tsv", ["query-id\tcorpus-id\tscore", *lines], str)


def write_lines(path: Path, rows: Iterable, render: Callable[..., str]) -> None:
    path.write_bytes("".join(f"{render(row)}\n" for row in rows).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
