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
COUNTS = {"train": 4500, "dev": 250, "test": 400}
SKIPPED_NEEDS = frozenset(
    ("giftwrap", "mothsfood", "stalebread", "pigeons", "cannotsleep", "ringdrain", "fever", "scald")
)
NUM_FACTS = {1: 0.2, 2: 0.55, 3: 0.25}  # how many circumstances hold in a query
NEUTRAL_FACT = 0.12  # chance that one more circumstance is added which changes nothing
DECOY_FACT = 0.1  # chance that a circumstance is mentioned only to be cancelled
GRADE_TWO = range(1, 4)  # allowed number of fully fitting documents of a query
MIN_EXCLUDED = (4, 3, 2, 1)  # so many documents of the need must not fit; the next value when no query is found
TRIES = 60  # draws per value
EASY = 0.75  # a query is easy when ranking its need's documents by their usual grade reaches this nDCG
EASY_KEPT = 0.25  # chance that an easy query stays
RESERVED_SITUATIONS = {"dev": 1, "test": 2}  # last wordings of each situation list
RESERVED_WORDINGS = {"dev": 1, "test": 2}  # last wordings of each circumstance
RESERVED_PAIRS = 0.2  # share of need x circumstance pairs that train never sees
NEW_SITUATION = 0.75  # share of dev and test queries with a reserved situation wording
NEW_WORDING = 0.6  # chance that a circumstance of a dev or test query has a reserved wording
NEW_PAIR = 0.5  # share of dev and test queries with a reserved pair
HELD_OUT_PER_NEED = 2  # documents per need without any training judgement
ALL_HELD_OUT = 0.3  # share of dev and test queries whose fully fitting documents are all held out
APART = 0.4  # chance of `apart` where a need can be met away from the living rooms
APART_NEEDS = frozenset(
    ("burntpan", "limescale", "dullknife", "tin", "moths", "wetshoes", "shoesmell")
    + ("crease", "wetlaundry", "zip", "seam", "cork")
)
PARDON = 0.4  # chance that a document with annoying exclusions pardons them for a circumstance
PARDONS = {  # and what makes a pardon senseless
    "pardonhurry": {"mins", "hour", "night", "buy"},
    "pardonpower": {"plug", "drill"},
    "pardonshops": {"buy"},
    "pardonalone": {"two", "onlyteam"},
}
MAX_CONDITIONS = 3


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
    """Adds the conditions that act only together with others: `apart` and the pardons."""
    names = list(means.properties)
    annoying = PARDONABLE & set(names)
    carried = [n for n in names if n in {"loud", "fumes", "dust"}]
    if means.need in APART_NEEDS and carried and len(names) < MAX_CONDITIONS and rng.random() < APART:
        names.append("apart")
    elif annoying and not any(n.startswith("pardon") for n in names) and rng.random() < PARDON:
        choices = [n for n, clash in PARDONS.items() if not clash & set(names)]
        if choices and len(names) < MAX_CONDITIONS:
            names.append(rng.choice(choices))
    return replace(means, properties=tuple(names))


def make_documents(world: World, rng: random.Random) -> list[Document]:
    """Words every means; identifiers are dealt at random, so that neighbours in the corpus have nothing in common."""
    deck = Deck(rng)
    needs = [need for key, need in world.needs.items() if key not in SKIPPED_NEEDS]
    means = [add_interplay(item, rng) for need in needs for item in need.means]
    texts = [document_text(item, world, deck, rng) for item in means]
    order = rng.sample(range(len(means)), len(means))
    return [Document(f"d{rank + 1:03d}", means[index], texts[index]) for rank, index in enumerate(order)]


@dataclass(frozen=True)
class Goal:
    """What a drawn query has to fulfil."""

    doc_id: str
    min_grade: int
    min_excluded: int
    all_held_out: bool


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
        self.usual = {need.key: self._usual_grades(need) for need in self.needs}
        self.held_out = {doc_id for need in self.needs for doc_id in self._hold_out(need)}
        self.used: Counter[str] = Counter()
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

    def _cases(self, need: Need, sizes: tuple[int, ...]) -> list[dict[str, int]]:
        """Grades under every combination of so many relevant circumstances."""
        keys = sorted(self.relevant[need.key])
        groups = [group for size in sizes for group in combinations(keys, size) if self._compatible(group)]
        return [self.grades(need, group) for group in groups]

    def _usual_grades(self, need: Need) -> dict[str, float]:
        cases = self._cases(need, (1, 2))
        return {d.doc_id: sum(case[d.doc_id] for case in cases) / len(cases) for d in self.documents[need.key]}

    def _easy(self, need: Need, grades: dict[str, int]) -> bool:
        """Whether knowing the need and nothing of the circumstances is enough."""
        usual = self.usual[need.key]
        found = gain([grades[doc_id] for doc_id in sorted(usual, key=lambda d: (-usual[d], d))])
        return found >= EASY * gain(sorted(grades.values(), reverse=True))

    def _hold_out(self, need: Need) -> tuple[str, ...]:
        """Chooses documents that are now and then the only fully fitting ones, else nobody would miss them."""
        ids = [document.doc_id for document in self.documents[need.key]]
        fitting = [{d for d, g in case.items() if g == 2} for case in self._cases(need, (2, 3))]
        scored = []
        for group in combinations(ids, HELD_OUT_PER_NEED):
            alone = sum(bool(docs) and docs <= set(group) for docs in fitting)
            scored.append((alone, self.rng.random(), group))
        # Not the very best pair each time: that would always be the means without conditions.
        return self.rng.choice(sorted(scored, reverse=True)[:5])[2]

    def _draw_circumstances(self, need: Need, pool: list[str], must: list[str]) -> list[str]:
        size = self.rng.choices(list(NUM_FACTS), list(NUM_FACTS.values()))[0]
        chosen = [self.rng.choice(must)] if must else []
        # Common circumstances get their turn less often, or every other guest would be in a hurry.
        weights = [self.relevant[need.key][key] ** 0.5 / (10 + self.used[key]) for key in pool]
        for _ in range(20):
            if len(chosen) >= size:
                break
            key = self.rng.choices(pool, weights)[0]
            if self._compatible([*chosen, key]):
                chosen.append(key)
        return chosen

    def _acceptable(self, need: Need, grades: dict[str, int], split: str, goal: Goal) -> bool:
        best = {doc_id for doc_id, value in grades.items() if value == 2}
        excluded = sum(value == 0 for value in grades.values())
        if len(best) not in GRADE_TWO or excluded < goal.min_excluded or grades[goal.doc_id] < goal.min_grade:
            return False
        if split != "train" and goal.all_held_out != (best <= self.held_out):
            return False
        if split == "train" and best <= self.held_out:
            return False
        return not self._easy(need, grades) or self.rng.random() < EASY_KEPT

    def _neutral(self, need: Need, chosen: list[str], banned: frozenset[str]) -> list[str]:
        plain = self.grades(need, chosen)
        keys = [key for key in self._allowed(need) if key not in banned and self._compatible([*chosen, key])]
        keys = [key for key in keys if self.grades(need, [*chosen, key]) == plain]
        return [self.rng.choice(keys)] if keys else []

    def _facts(self, keys: list[str], split: str) -> list[str]:
        facts = []
        for key in keys:
            wordings = list(self.world.circumstances[key].wordings)
            facts.append(self.rng.choice(portion(wordings, split, RESERVED_WORDINGS, NEW_WORDING, self.rng)))
        return facts

    def _decoy(self, need: Need, keys: list[str]) -> list[str]:
        table = self.world.circumstances
        family = {"sleep", "toddler", "pet"}  # the same baby cannot be away and in the house
        clash = {other for key in keys for other in table[key].conflicts | {key}} | (
            family if family & set(keys) else set()
        )
        options = [text for key in self._allowed(need) if key not in clash for text in table[key].decoys]
        return [self.rng.choice(options)] if options else []

    def draw(self, need: Need, split: str, goal: Goal) -> Query | None:
        """Draws one query, or none when the draw breaks a rule of the split."""
        rng, reserved = self.rng, self.reserved[need.key]
        must = sorted(reserved) if split != "train" and rng.random() < NEW_PAIR else []
        banned = reserved if split == "train" else frozenset()
        pool = [key for key in self.relevant[need.key] if key not in banned]
        chosen = self._draw_circumstances(need, pool, must)
        if not self._acceptable(need, self.grades(need, chosen), split, goal):
            return None
        if rng.random() < NEUTRAL_FACT and len(chosen) < max(NUM_FACTS):
            chosen += self._neutral(need, chosen, banned)
        combination = (need.key, frozenset(chosen))
        if split != "train" and combination in self.train_combinations:
            return None
        facts = self._facts(chosen, split)
        if rng.random() < DECOY_FACT and len(chosen) < max(NUM_FACTS):
            facts += self._decoy(need, chosen)
        situation = rng.choice(portion(need.situations, split, RESERVED_SITUATIONS, NEW_SITUATION, rng))
        text = query_text(situation, facts, self.world, rng)
        if text in self.seen_texts:
            return None
        self.seen_texts.add(text)
        if split == "train":
            self.train_combinations.add(combination)
        grades = {doc_id: value for doc_id, value in self.grades(need, chosen).items() if value}
        if split == "train":
            grades = {doc_id: value for doc_id, value in grades.items() if doc_id not in self.held_out}
        return Query("", need.key, frozenset(chosen), text, grades)

    def split(self, name: str, count: int) -> list[Query]:
        """Draws `count` queries; each is aimed at a document, so that every document gets its share of them."""
        queries: list[Query] = []
        quota = round(ALL_HELD_OUT * count) if name != "train" else 0
        queues: dict[bool, list[str]] = {True: [], False: []}
        need_of = {d.doc_id: need for need in self.needs for d in self.documents[need.key]}
        while len(queries) < count:
            held_out = len(queries) < quota
            queue = queues[held_out]
            if not queue:
                queue += sorted(self.held_out if held_out else need_of.keys() - self.held_out)
                self.rng.shuffle(queue)
            query = self._aim(need_of, name, queue.pop(), held_out)
            if query is not None:
                queries.append(query)
                self.used.update(query.circumstances)
        return queries

    def _aim(self, need_of: dict[str, Need], name: str, doc_id: str, held_out: bool) -> Query | None:
        """Looks for a query that the document fits, giving in on difficulty before giving in on the fit."""
        for min_grade in (2, 1):
            for min_excluded in MIN_EXCLUDED:
                goal = Goal(doc_id, min_grade, min_excluded, held_out)
                for _ in range(TRIES):
                    query = self.draw(need_of[doc_id], name, goal)
                    if query is not None:
                        return query
        return None


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
