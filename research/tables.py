"""The tables of the page research/log.md, as Markdown, from a study's summary and its details."""

from __future__ import annotations

from typing import Any

from research.goals import RIVAL_TITLES, RIVALS, change_text, ends_text
from research.summary import FORMS, student_changes, systems_measured

COLUMNS = ("nDCG@10", "R@1", "R@3", "MRR@10", "S@1", "ms_per_query", "bytes_per_document")
TITLES = {"ms_per_query": "ms/query", "bytes_per_document": "bytes/doc"}
RERANKED = 100  # documents of a bi-encoder that a teacher reads, in the table of costs


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
    systems, rows = systems_measured(summary), []
    for name, row in summary["sets"].items():
        values = {system: row["systems"][system]["nDCG@10"] for system in row["systems"]}
        best = max(values.values())
        cells = [_strong(f"{values[one]:.1f}", values[one] == best) if one in values else "" for one in systems]
        facts = [row["backbone"], str(row["num_queries"]), f"{row['num_documents']:,}", str(len(row["seeds"]))]
        rows.append([name, *facts, *cells])
    return table(["", "backbone", "queries:", "documents:", "seeds:", *(f"{one}:" for one in systems)], rows)


def student_table(summary: dict, details: dict) -> str:
    """Retention, and the differences to each of `RIVAL_TITLES`."""
    rows = []
    for name, changes in student_changes(summary, details).items():
        retention = summary["sets"][name]["retention"]
        kept = "" if retention is None else f"{retention:.1f} %"
        rows.append([name, kept, *(_change(changes[rival]) for rival in RIVAL_TITLES)])
    return table(["", "retention:", *(f"student − {title}:" for title in RIVAL_TITLES.values())], rows)


def forms_table(summary: dict, details: dict) -> str:
    """What other forms of student and teacher change; sets that have none of them are left out."""
    changes = {name: details["sets"][name]["forms"] for name in summary["sets"]}
    rows = [
        [name, *(_change(found[form]) for form, _ in FORMS)] for name, found in changes.items() if any(found.values())
    ]
    return table(["", *(f"{form} − {usual}:" for form, usual in FORMS)], rows)


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
        "The student's nDCG@10 with some settings changed ([what each changes](studies/common.yaml)), the "
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
    facts = (
        "The student's nDCG@10 with on-policy candidates less that with random ones. Both are given the same number of "
        "documents a query to choose; what is mined overlaps with the right ones, so the random ones cost more teacher "
        "calls, as many as the tables above say:"
    )
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
    """Trials without figures, and why."""
    trials: dict[tuple[str, str, bool], list[str]] = {}
    for one in details["missing"]:
        name, seed, *ablation = one["trial"].split(", ")
        trials.setdefault((f"{name}, {seed}", one["why"], bool(ablation)), []).extend(ablation)
    parts = ([trial, ", ".join(names), why] for (trial, why, _), names in trials.items())
    lines = [f"- {': '.join(filter(None, part))}" for part in parts]
    return "\n".join(lines) + "\n"


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
