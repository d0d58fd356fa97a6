"""Writes the generated parts of docs/results.md, and the pictures in docs/img, from research/results/cpu.json.

`python docs/update_results.py` writes them anew. A part stands between `<!-- results: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "results.md"
FIGURES = DOCS.parent / "research/results/cpu.json"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {
    "alfred": "ALFRED",
    "argkp": "ArgKP",
    "ecare": "e-CARE",
    "entailmentbank": "EntailmentBank",
    "esconv": "ESConv",
    "household": "household",
    "metatool": "MetaTool",
    "nfcorpus": "NFCorpus",
    "piqa": "PIQA",
    "saycan": "SayCan",
    "theoremqa": "TheoremQA",
}
RIVALS = {
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "distilled_calibrated": "distilled bi-encoder with the prior",
}
SYSTEMS = {
    "bm25": "BM25",
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "student": "student",
}


def readable(key: str) -> str:
    """The name of a row of the study: `saycan-minilm` is `SayCan, MiniLM`."""
    name, _, backbone = key.partition("-")
    return NAMES[name] + (", MiniLM" if backbone else "")


def comparison(figures: dict[str, Any], key: str, rival: str) -> dict[str, float]:
    """The student's nDCG@10 less a rival's on one row, in points: `difference`, `low` and `high`.

    The interval resamples groups of queries with the same relevant documents. A row with under ten groups has none of
    that kind, so its interval resamples single queries.
    """
    details, row = figures["details"]["sets"][key], figures["summary"]["sets"][key]
    found = row.get(f"student_vs_{rival}") or details["student_vs"][rival]
    grouped = details["resampled"]["student_vs"][rival]["groups"]
    return {**found, **(grouped or {})}


def difference_picture() -> str:
    """The picture of docs/results.md: the student less each rival on every row."""
    sys.path.insert(0, str(DOCS / "img"))
    try:
        from draw import differences
    finally:
        sys.path.pop(0)
    figures = _figures()
    rows = [
        (readable(key), [comparison(figures, key, rival) for rival in RIVALS]) for key in figures["summary"]["sets"]
    ]
    return differences(
        "The student beats a plain bi-encoder. A distilled one with the same prior is mostly level.",
        "Intervals resample groups of queries with the same relevant documents; ESConv, with 8 groups, single queries.",
        ("bi-encoder", "distilled bi-encoder\nfrom the same teacher", "distilled bi-encoder\nwith the document prior"),
        rows,
    )


def table(figures: dict[str, Any]) -> str:
    """nDCG@10 of every row, and the student's difference to three rivals; bold where the interval excludes zero."""
    titles = [*SYSTEMS.values(), *(f"student − {name}" for name in RIVALS.values())]
    lines = [f"| set | queries | seeds | {' | '.join(titles)} |", "|---|" + "---:|" * (2 + len(titles))]
    for key, row in figures["summary"]["sets"].items():
        cells = [readable(key), f"{row['num_queries']:,}", str(len(row["seeds"]))]
        cells += [f"{row['systems'][system]['nDCG@10']:.1f}" for system in SYSTEMS]
        cells += [_signed(comparison(figures, key, rival)) for rival in RIVALS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def findings(figures: dict[str, Any]) -> str:
    """The five findings; their counts, names and figures are computed."""
    rows = figures["summary"]["sets"]
    outcome = {rival: {key: _outcome(comparison(figures, key, rival)) for key in rows} for rival in RIVALS}
    plain, distilled, prior = (outcome[rival] for rival in RIVALS)
    kept = min(row["retention"] for row in rows.values())
    without = {
        key: sets["no_similarity"]["systems"]["student"]["difference"]
        for key, sets in figures["details"]["ablations"].items()
        if "no_similarity" in sets
    }
    lost = ", ".join(f"{readable(key)} {-points:.1f}" for key, points in without.items())
    texts = (
        f"**The student beats a plain bi-encoder on {_count(plain, 'ahead')} of {len(rows)} rows.** "
        f"It is behind on {_listed(plain, 'behind')}. There is no clear difference on {_listed(plain, 'tied')}.",
        f"**It beats a bi-encoder distilled from the same teacher on {_count(distilled, 'ahead')} rows.** "
        f"These rows are {_listed(distilled, 'ahead')}. It is behind on {_listed(distilled, 'behind')}.",
        "**Most of the gain is a per-document prior learned from training queries. A bi-encoder can use it too.** "
        f"The student beats a distilled bi-encoder with this prior on {_listed(prior, 'ahead')}. "
        f"It is behind on {_listed(prior, 'behind')}.",
        f"**The student keeps {kept:.1f} % or more of its teacher's nDCG@10 on every row. That says little.** "
        "The bi-encoder score alone keeps 97.5 % (MetaTool) and 98.5 % (household). "
        "These two figures are of dev queries and one seed.",
        "**At this size the paper's score alone is not enough.** "
        "It has no bi-encoder score, and so no prior, weight averages, second model or self-distillation. "
        f"The student then loses this many points of nDCG@10: {lost}. It ranks below the plain bi-encoder.",
    )
    return "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1))


def cost(figures: dict[str, Any]) -> str:
    """Milliseconds of one query by system and corpus size."""
    names = {"teacher": "teacher, reads all documents", "student": "student", "biencoder": "bi-encoder"}
    rows = [row for row in figures["details"]["complexity"]["rows"] if row["varied"] == "documents"]
    sizes = sorted({row["documents"] for row in rows})
    titles = [*names.values(), "bi-encoder, then the teacher on its first 100"]
    lines = [f"| documents | {' | '.join(titles)} |", "|---:|" + "---:|" * len(titles)]
    reading = min(row["milliseconds"] / row["documents"] for row in rows if row["system"] == "teacher")
    for size in sizes:
        found = {row["system"]: row["milliseconds"] for row in rows if row["documents"] == size}
        encoding = {row["system"]: row["encoding_milliseconds"] for row in rows if row["documents"] == size}
        whole = {system: found[system] + encoding[system] for system in names}
        times = [*whole.values(), whole["biencoder"] + 100 * reading]
        cells = [f"{size:,}", *(f"{time:,.0f}" if time >= 100 else f"{time:.1f}" for time in times)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def steps(figures: dict[str, Any]) -> str:
    """How the student compares with a distilled bi-encoder of four times the steps."""
    found = {
        key: rows["distilled_longest"]["rivals"]["biencoder_distilled"]
        for key, rows in figures["details"]["student_vs_changed"].items()
        if "distilled_longest" in rows
    }
    told = ", ".join(f"{_signed(change)} on {readable(key)}" for key, change in found.items())
    return f"With four times the steps for the distilled bi-encoder, the student's lead (plain intervals) is: {told}."


def rendered(page: Path = PAGE) -> str:
    """The page with its generated parts written anew."""
    figures = _figures()
    parts = {"findings": findings, "table": table, "cost": cost, "steps": steps}
    return BLOCK.sub(
        lambda match: f"{match.group(1)}{parts[match.group(2)](figures)}\n{match.group(3)}",
        page.read_text(encoding="utf-8"),
    )


def main() -> None:
    """Writes page and pictures."""
    sys.path.insert(0, str(DOCS / "img"))
    import draw

    PAGE.write_text(rendered(), encoding="utf-8")
    draw.main()


def _figures() -> dict[str, Any]:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def _outcome(found: dict[str, float]) -> str:
    return "ahead" if found["low"] > 0 else "behind" if found["high"] < 0 else "tied"


def _count(outcome: dict[str, str], wanted: str) -> int:
    return list(outcome.values()).count(wanted)


def _listed(outcome: dict[str, str], wanted: str) -> str:
    """The rows of one outcome as words: `A, B (MiniLM) and C`, or `no row`."""
    names = [readable(key).replace(", MiniLM", " (MiniLM)") for key, found in outcome.items() if found == wanted]
    if not names:
        return "no row"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _signed(found: dict[str, float]) -> str:
    """`+1.2 (+0.6 to +1.8)`, bold where the interval excludes zero."""
    middle, low, high = (f"{found[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high"))
    text = f"{middle} ({low} to {high})"
    return text if _outcome(found) == "tied" else f"**{text}**"


if __name__ == "__main__":
    main()
