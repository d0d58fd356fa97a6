"""What the registry shows of a version: its figures on test queries, and the model card of its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import CARD
from rabtriever.ops.terminal import one_line

LONGEST = 5000  # characters that MLflow's database keeps
_COLUMNS = {"nDCG@10": ".1f", "MRR@10": ".1f", "R@10": ".1f", "R@100": ".1f", "S@1": ".1f", "ms_per_query": ".2f"}
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_CUT = f"\n\nThe rest is in {CARD}."


def version_description(folder: Path, evaluation: Mapping[str, Any]) -> str:
    """The evaluation table and the card of a retriever folder, as Markdown; the card is cut where it is too long.

    Args:
        folder: of the retriever; those of earlier releases have no card.
        evaluation: content of reports/evaluation.json.
    """
    path = folder / CARD
    card = _FRONT.sub("", path.read_text(encoding="utf-8")).strip() if path.is_file() else ""
    text = f"{_table(evaluation)}\n\n{card}".strip()
    if len(text) <= LONGEST:
        return text
    return text[: LONGEST - len(_CUT)].rpartition("\n")[0] + _CUT


def _table(evaluation: Mapping[str, Any]) -> str:
    head = [f"| system | {' | '.join(_COLUMNS)} |", "|---|" + "---:|" * len(_COLUMNS)]
    rows = [f"| {name} | {' | '.join(_cells(row))} |" for name, row in evaluation.get("systems", {}).items()]
    dataset = one_line(str(evaluation.get("dataset", ""))).replace("`", "'")
    queries, documents = evaluation.get("num_queries"), evaluation.get("num_documents")
    title = f"`{dataset}`, test: {queries} queries, {documents} documents (metrics in per cent)"
    return "\n".join(["## Evaluation", "", title, "", *head, *rows])


def _cells(row: Mapping[str, float | None]) -> list[str]:
    values = ((row.get(column), form) for column, form in _COLUMNS.items())
    return ["–" if value is None else format(value, form) for value, form in values]
